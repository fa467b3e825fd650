//! Escaping of header names and values, which differs from version to version.

use super::Version;

/// Appends `text` as a header name or value of `version`.
///
/// A line end in 1.0, and NUL in all versions, can't be expressed: they become a space, for they must not end a line or
/// frame. A carriage return is an octet like others in 1.0 and 1.1, where only a line feed ends a line.
pub(super) fn push_escaped(out: &mut Vec<u8>, text: &str, version: Version) {
    for byte in text.bytes() {
        match (byte, version) {
            (b'\n', Version::V1_0) | (0, _) => out.push(b' '),
            (b'\n', _) => out.extend_from_slice(b"\\n"),
            (b'\r', Version::V1_2) => out.extend_from_slice(b"\\r"),
            (b':', Version::V1_1 | Version::V1_2) => out.extend_from_slice(b"\\c"),
            (b'\\', Version::V1_1 | Version::V1_2) => out.extend_from_slice(b"\\\\"),
            _ => out.push(byte),
        }
    }
}

/// Reads a header name or value; `None` for an escape that is none (fatal by STOMP 1.2, "Value Encoding", and here in
/// 1.1 too: there is no other sense that it could have).
pub(super) fn unescape(text: &str, version: Version) -> Option<String> {
    if version == Version::V1_0 || !text.contains('\\') {
        return Some(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next()? {
            'n' => '\n',
            'r' if version == Version::V1_2 => '\r',
            'c' => ':',
            '\\' => '\\',
            _ => return None,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(text: &str, version: Version) -> String {
        let mut out = Vec::new();
        push_escaped(&mut out, text, version);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_version_escapes_what_it_knows() {
        assert_eq!(escaped("a:b\\c\nd\re", Version::V1_2), "a\\cb\\\\c\\nd\\re");
        assert_eq!(escaped("a:b\\c\nd\re", Version::V1_1), "a\\cb\\\\c\\nd\re");
        assert_eq!(escaped("a:b\\c\nd\re", Version::V1_0), "a:b\\c d\re");
    }

    #[test]
    fn an_unknown_or_cut_escape_is_refused() {
        assert_eq!(unescape("a\\t", Version::V1_2), None);
        assert_eq!(unescape("a\\", Version::V1_2), None);
        assert_eq!(unescape("a\\r", Version::V1_1), None);
        assert_eq!(unescape("a\\t", Version::V1_0).as_deref(), Some("a\\t"));
        assert_eq!(unescape("\\\\c\\c", Version::V1_2).as_deref(), Some("\\c:"));
    }
}
