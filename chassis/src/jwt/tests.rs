use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, encode};
use rsa::{
    RsaPrivateKey,
    pkcs1::{EncodeRsaPrivateKey as _, LineEnding},
    traits::PublicKeyParts as _,
};
use serde_json::json;

use super::*;

const ISSUER: &str = "http://core.test";

struct Issuer {
    key: EncodingKey,
    jwks: JwkSet,
}

fn issuer(kid: &str) -> Issuer {
    let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    let pem = private.to_pkcs1_pem(LineEnding::LF).unwrap();
    let number = |n: &rsa::BigUint| URL_SAFE_NO_PAD.encode(n.to_bytes_be());
    let jwk = json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid,
                      "n": number(private.n()), "e": number(private.e()) });
    Issuer {
        key: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        jwks: serde_json::from_value(json!({ "keys": [jwk] })).unwrap(),
    }
}

fn claims() -> Claims {
    let now = chrono::Utc::now().timestamp();
    Claims {
        iss: ISSUER.into(),
        sub: "42".into(),
        aud: AUDIENCE.into(),
        exp: now + 60,
        iat: now,
        nbf: None,
        jti: "j".into(),
        scope: "messages:write".into(),
        client_id: None,
        sid: None,
    }
}

fn sign(issuer: &Issuer, kid: &str, claims: &Claims) -> String {
    let header = Header { kid: Some(kid.into()), ..Header::new(Algorithm::RS256) };
    encode(&header, claims, &issuer.key).unwrap()
}

#[test]
fn each_fault_of_a_token_has_its_reason() {
    let ours = issuer("k1");
    let verifier = Verifier::new(ISSUER);
    verifier.set_keys(&ours.jwks);
    let reason = |token: &str| verifier.verify(token).map_or_else(|error| error.reason(), |_| "valid");
    let now = chrono::Utc::now().timestamp();

    assert_eq!(reason(&sign(&ours, "k1", &claims())), "valid");
    assert_eq!(reason(&sign(&ours, "k1", &Claims { exp: now - 60, ..claims() })), "expired");
    assert_eq!(reason(&sign(&ours, "k1", &Claims { nbf: Some(now + 60), ..claims() })), "not_yet_valid");
    assert_eq!(reason(&sign(&ours, "k1", &Claims { iss: "http://evil.test".into(), ..claims() })), "wrong_issuer");
    assert_eq!(reason(&sign(&ours, "k1", &Claims { aud: "other".into(), ..claims() })), "wrong_audience");
    assert_eq!(reason(&sign(&ours, "k2", &claims())), "unknown_key");
    assert_eq!(reason(&sign(&issuer("k1"), "k1", &claims())), "bad_signature");
    assert_eq!(reason("not.a.token"), "malformed");
    assert_eq!(reason(&"x".repeat(MAX_TOKEN + 1)), "malformed");
}

#[test]
fn another_algorithm_is_refused_even_with_a_public_key_as_its_secret() {
    let ours = issuer("k1");
    let verifier = Verifier::new(ISSUER);
    verifier.set_keys(&ours.jwks);
    let header = Header { kid: Some("k1".into()), ..Header::new(Algorithm::HS256) };
    let secret = serde_json::to_vec(&ours.jwks).unwrap();
    let symmetric = encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", part(json!({ "alg": "none", "kid": "k1" })), part(json!(claims())));
    for token in [symmetric, unsigned] {
        assert!(matches!(verifier.verify(&token), Err(TokenError::Malformed(_))), "{token}");
    }
}
