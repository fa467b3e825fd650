//! Query strings and forms.

use std::borrow::Cow;

/// A callback's name is written into a script, so it may hold nothing that does anything there; bytes.
const MAX_CALLBACK: usize = 128;

/// The function that a script calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Callback {
    Good(String),
    Missing,
    Bad,
}

/// `?c=` or `?callback=`.
pub fn callback(query: Option<&str>) -> Callback {
    let query = query.unwrap_or_default().as_bytes();
    let Some(name) = field(query, "c").or_else(|| field(query, "callback")).filter(|name| !name.is_empty()) else {
        return Callback::Missing;
    };
    let is_safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    if name.len() > MAX_CALLBACK || !name.iter().all(is_safe) {
        return Callback::Bad;
    }
    Callback::Good(name.iter().copied().map(char::from).collect())
}

/// The first value of a field, decoded.
pub fn field<'a>(form: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    form.split(|byte| *byte == b'&').find_map(|pair| {
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(decode(value))
    })
}

fn decode(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return value.into();
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        rest = tail;
        out.push(match (first, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = tail;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => *byte,
        });
    }
    out.into()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_a_name_and_nothing_that_runs() {
        let good = |name: &str| Callback::Good(name.to_owned());
        assert_eq!(callback(Some("c=%63allback")), good("callback"));
        assert_eq!(callback(Some("t=1&c=_jp.a1-b")), good("_jp.a1-b"));
        assert_eq!(callback(Some("callback=x")), good("x"));
        for missing in [None, Some(""), Some("c="), Some("d=x")] {
            assert_eq!(callback(missing), Callback::Missing, "{missing:?}");
        }
        for bad in ["%20", "*", "abc(", "abc%28", "<script>", "%3cscript%3e", "%c3%a4"] {
            assert_eq!(callback(Some(&format!("c={bad}"))), Callback::Bad, "{bad}");
        }
        assert_eq!(callback(Some(&format!("c={}", "x".repeat(129)))), Callback::Bad);
    }

    #[test]
    fn forms_are_decoded() {
        assert_eq!(&*field(b"d=%5B%22x%22%5D", "d").unwrap(), b"[\"x\"]");
        assert_eq!(&*field(b"a=b&d=a+b%2Bc", "d").unwrap(), b"a b+c");
        assert_eq!(&*field(b"d=100%&e=", "d").unwrap(), b"100%");
        assert_eq!(&*field(b"d=%zz", "d").unwrap(), b"%zz");
        assert_eq!(&*field(b"d=", "d").unwrap(), b"");
        assert_eq!(field(b"p=p", "d"), None);
    }
}
