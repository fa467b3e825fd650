//! UTF-8, checked as it comes: a character may be cut anywhere.

/// The check of one message.
#[derive(Debug, Default)]
pub struct Utf8 {
    /// The start of a character whose rest has not come.
    partial: [u8; 4],
    len: usize,
}

/// The message is no UTF-8, whatever comes.
#[derive(Debug, PartialEq, Eq)]
pub struct NotUtf8;

impl Utf8 {
    /// Takes the next bytes of the message.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), NotUtf8> {
        while self.len > 0 {
            let Some((byte, rest)) = bytes.split_first() else { return Ok(()) };
            self.partial[self.len] = *byte;
            self.len += 1;
            bytes = rest;
            match std::str::from_utf8(&self.partial[..self.len]) {
                Ok(_) => self.len = 0,
                // Four bytes are a character or an error: there is room for the next one.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(NotUtf8),
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let rest = &bytes[error.valid_up_to()..];
                self.partial[..rest.len()].copy_from_slice(rest);
                self.len = rest.len();
                Ok(())
            }
            Err(_) => Err(NotUtf8),
        }
    }

    /// The message is over: no character may be cut.
    pub fn finish(&mut self) -> Result<(), NotUtf8> {
        if std::mem::take(&mut self.len) == 0 { Ok(()) } else { Err(NotUtf8) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(parts: &[&[u8]]) -> Result<(), NotUtf8> {
        let mut utf8 = Utf8::default();
        parts.iter().try_for_each(|part| utf8.push(part))?;
        utf8.finish()
    }

    #[test]
    fn a_character_may_be_cut_anywhere_but_at_the_end() {
        let text = "κόσμε 𝄞".as_bytes();
        for at in 0..=text.len() {
            assert_eq!(check(&[&text[..at], &text[at..]]), Ok(()), "cut at {at}");
        }
        assert_eq!(check(&[&text[..text.len() - 1]]), Err(NotUtf8));
    }

    #[test]
    fn what_can_never_become_a_character_is_refused_at_once() {
        for bad in [&[0xc0, 0x80][..], &[0xed, 0xa0, 0x80], &[0xf4, 0x90], &[0xff], &[0x80]] {
            let mut utf8 = Utf8::default();
            assert!(bad.iter().any(|byte| utf8.push(&[*byte]).is_err()), "{bad:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_of_any_bytes_is_judged_as_the_whole(bytes: Vec<u8>, cuts: Vec<proptest::sample::Index>) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut parts = Vec::new();
            let mut from = 0;
            for cut in cuts {
                parts.push(&bytes[from..cut]);
                from = cut;
            }
            parts.push(&bytes[from..]);
            prop_assert_eq!(check(&parts).is_ok(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
