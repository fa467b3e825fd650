//! Names that are compared: normalised by NFKC and case folding, so that look-alikes of one spelling are one.

use caseless::Caseless as _;
use proto::Code;
use unicode_normalization::UnicodeNormalization as _;

use crate::error::{Result, refuse};

const MAX_EMAIL: usize = 320;
const MAX_USERNAME: usize = 64;

/// NFKC, case-folded, NFKC again (folding may undo it), without space around.
pub fn normalise(text: &str) -> String {
    text.trim().nfkc().default_case_fold().nfkc().collect()
}

/// A username: 1 to 64 letters, digits, `_`, `-`, `.`.
pub fn username(text: &str) -> Result<String> {
    let name = normalise(text);
    let legal = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    if !name.is_empty() && name.len() <= MAX_USERNAME && name.chars().all(legal) {
        return Ok(name);
    }
    refuse(Code::InvalidBody, format!("username: expected 1 to {MAX_USERNAME} letters, digits, '_', '-' or '.'"))
}

/// An e-mail address, by its shape only: whether it exists is for a confirmation to find out.
pub fn email(text: &str) -> Result<String> {
    let address = normalise(text);
    let whole = address.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && domain.contains('.') && !domain.contains('@') && !domain.starts_with('.')
    });
    if whole && address.len() <= MAX_EMAIL && !address.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(address);
    }
    refuse(Code::InvalidBody, "email: expected an address like name@example.com")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_one() {
        assert_eq!(username("Straße").unwrap(), username("STRASSE").unwrap());
        assert_eq!(username("ｋｅｌｖｉｎ").unwrap(), "kelvin");
        assert_eq!(email(" Alice@Example.COM ").unwrap(), "alice@example.com");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in ["", "  ", "a b", "a/b", "a@b", &"x".repeat(65)] {
            assert!(username(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "alice", "@example.com", "a@b", "a b@example.com", "a@b@example.com"] {
            assert!(email(bad).is_err(), "{bad:?}");
        }
    }
}
