//! JSON strings as SockJS wants them: written with everything escaped that browsers or proxies may spoil on the way,
//! and read without holding more than what comes out.

use std::fmt::{self, Write as _};

use bytes::{BufMut as _, BytesMut};
use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};

/// Whether a character of several bytes has to be escaped: those that the protocol lists for servers.
fn is_unsafe(c: char) -> bool {
    matches!(
        c,
        '\u{200c}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{ffff}'
    )
}

/// Appends one JSON string of these parts.
pub fn quote(parts: &[&str], out: &mut String) {
    out.push('"');
    for part in parts {
        let mut copied = 0;
        let mut at = 0;
        while let Some(byte) = part.as_bytes().get(at) {
            let (escape, len) = match byte {
                b'"' => ("\\\"", 1),
                b'\\' => ("\\\\", 1),
                b'\n' => ("\\n", 1),
                b'\r' => ("\\r", 1),
                b'\t' => ("\\t", 1),
                0x08 => ("\\b", 1),
                0x0c => ("\\f", 1),
                0..=0x1f => ("", 1),
                // The only first bytes of characters that may be unsafe.
                0xe2 | 0xef if part[at..].starts_with(is_unsafe) => ("", 3),
                _ => {
                    at += 1;
                    continue;
                }
            };
            out.push_str(&part[copied..at]);
            out.push_str(escape);
            if escape.is_empty() {
                let c = part[at..].chars().next().unwrap_or_default();
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            at += len;
            copied = at;
        }
        out.push_str(&part[copied..]);
    }
    out.push('"');
}

/// Appends a frame as a string for a script inside a page. The frame is JSON: no line ends and no unsafe characters are
/// left in it.
pub fn quote_for_script(frame: &[u8], out: &mut BytesMut) {
    out.put_u8(b'"');
    for byte in frame {
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            // Nothing may look like the end of the script.
            b'<' => out.put_slice(b"\\u003c"),
            byte => out.put_u8(*byte),
        }
    }
    out.put_u8(b'"');
}

/// What a client's message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// An array of strings.
    Array,
    /// That, or a single string.
    ArrayOrString,
}

/// Appends the strings of a client's message to `out`, nothing where it is no such JSON.
pub fn read(json: &[u8], accept: Accept, out: &mut BytesMut) -> Result<(), serde_json::Error> {
    let before = out.len();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let strings = Strings { accept, out };
    let result = strings.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if result.is_err() {
        out.truncate(before);
    }
    result
}

struct Strings<'a> {
    accept: Accept,
    out: &'a mut BytesMut,
}

impl<'de> DeserializeSeed<'de> for Strings<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.accept {
            Accept::Array => deserializer.deserialize_seq(self),
            Accept::ArrayOrString => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Strings<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.accept {
            Accept::Array => "an array of strings",
            Accept::ArrayOrString => "an array of strings, or a string",
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.out.put_slice(text.as_bytes());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Item(self.out))?.is_some() {}
        Ok(())
    }
}

/// One string of an array.
struct Item<'a>(&'a mut BytesMut);

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(Text(self.0))
    }
}

struct Text<'a>(&'a mut BytesMut);

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.put_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(parts: &[&str]) -> String {
        let mut out = String::new();
        quote(parts, &mut out);
        out
    }

    fn strings(json: &str, accept: Accept) -> Option<String> {
        let mut out = BytesMut::from("before");
        let result = read(json.as_bytes(), accept, &mut out);
        let text = String::from_utf8(out.to_vec()).unwrap();
        let text = text.strip_prefix("before").unwrap();
        assert!(result.is_ok() || text.is_empty(), "half of {json:?} was taken");
        result.is_ok().then(|| text.to_owned())
    }

    #[test]
    fn every_character_that_the_protocol_lists_is_escaped() {
        let listed = |c: char| {
            let u = u32::from(c);
            u < 0x20
                || (0x200c..=0x200f).contains(&u)
                || (0x2028..=0x202f).contains(&u)
                || (0x2060..=0x206f).contains(&u)
                || (0xfff0..=0xffff).contains(&u)
        };
        for c in ('\0'..=char::MAX).filter(|c| u32::from(*c) < 0x1_1000) {
            let json = quoted(&[&c.to_string()]);
            assert_eq!(json.contains('\\'), listed(c) || c == '"' || c == '\\', "{json}");
            if listed(c) && u32::from(c) > 0x20 {
                assert_eq!(json, format!("\"\\u{:04x}\"", u32::from(c)));
            }
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), c.to_string());
        }
        assert_eq!(quoted(&["  \0\n\r "]), r#""  \u0000\n\r ""#);
    }

    #[test]
    fn what_is_no_array_of_strings_is_refused_whole() {
        assert_eq!(strings(r#"["a","b"]"#, Accept::Array).as_deref(), Some("ab"));
        assert_eq!(strings(" [ ] ", Accept::Array).as_deref(), Some(""));
        assert_eq!(strings(r#""a""#, Accept::ArrayOrString).as_deref(), Some("a"));
        assert_eq!(strings(r#"["\u0000\ud83d\ude00"]"#, Accept::ArrayOrString).as_deref(), Some("\0😀"));
        for broken in ["", "[\"a", "[\"a\"", "[\"a\",1]", "[[\"a\"]]", "[\"a\"] x", "{}", "1", "null", "[\"\\ud800\"]"]
        {
            assert_eq!(strings(broken, Accept::ArrayOrString), None, "{broken:?}");
        }
        assert_eq!(strings(r#""a""#, Accept::Array), None);
    }

    proptest! {
        #[test]
        fn what_is_quoted_in_any_parts_is_read_back(parts in prop::collection::vec(any::<String>(), 0..4)) {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let json = quoted(&parts);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), parts.concat());
            prop_assert_eq!(strings(&format!("[{json},{json}]"), Accept::Array), Some(parts.concat().repeat(2)));
        }

        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut out = BytesMut::new();
            let read = read(&bytes, Accept::ArrayOrString, &mut out);
            prop_assert!(read.is_ok() || out.is_empty());
        }

        #[test]
        fn a_frame_quoted_for_a_script_is_the_same_in_javascript(text in any::<String>()) {
            let frame = format!("a[{}]", quoted(&[&text]));
            let mut out = BytesMut::new();
            quote_for_script(frame.as_bytes(), &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), frame);
        }
    }
}
