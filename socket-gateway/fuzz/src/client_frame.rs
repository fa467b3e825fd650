//! A client's WebSocket frame as bytes.

/// How it is written.
#[derive(Default)]
pub struct Form {
    /// None: a fault.
    pub mask: Option<[u8; 4]>,
    /// The length takes the next longer form than it needs: a fault.
    pub long: bool,
}

impl Form {
    pub fn push(&self, first: u8, payload: &[u8], out: &mut Vec<u8>) {
        let len = payload.len() as u64;
        let needed = match len {
            0..=125 => 0,
            126..=0xffff => 1,
            _ => 2,
        };
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        out.push(first);
        match needed + u8::from(self.long) {
            0 => out.push(masked | len as u8),
            1 => {
                out.push(masked | 126);
                out.extend((len as u16).to_be_bytes());
            }
            _ => {
                out.push(masked | 127);
                out.extend(len.to_be_bytes());
            }
        }
        let mask = self.mask.unwrap_or_default();
        out.extend(self.mask.iter().flatten());
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}
