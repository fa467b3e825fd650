//! Frames, answers and times through a session's state machine.
//!
//! 1. Nothing panics, whatever comes in whatever order.
//! 2. The end is said once, and nothing after it.
//! 3. What is written are STOMP frames of a server; no input has more outputs than it can have asked for.
//! 4. A receipt is answered as often as it was asked for at most. Where the answers of hub and core are those that they
//!    give ([`Driver::faithful`]), and the session is not cut off: exactly as often.
//! 5. After a tick nothing is due: a timer can't fire without end.

mod driver;
mod receipts;
mod world;

use driver::Driver;

/// `[flags, steps..]`; flags: answers that nobody asked for may come (bit 0), limits are high (1). A step is a letter and
/// its parameters, one byte each; a letter that means nothing is skipped:
///
/// | step | is |
/// |---|---|
/// | `F` bytes up to a NUL | bytes of the client |
/// | `A` which how | an answer to something that was asked for |
/// | `S` which number {conversation joined}.. | a state of the user, where one is asked for |
/// | `E` what subscription conversation | an event that was not asked for |
/// | `T` time | time passes, then a tick |
/// | `N` | time passes up to the deadline, then a tick |
/// | `R`, `W`, `O`, `B`, `D` time | bytes have come, were written; the queue overflows; the transport breaks; a drain |
pub fn run(data: &[u8]) {
    let [flags, steps @ ..] = data else { return };
    let mut driver = Driver::new(flags & 1 != 0, flags & 2 != 0);
    let mut steps = Steps(steps);
    while let Some(step) = steps.byte() {
        match step {
            b'F' => driver.bytes(steps.through_nul()),
            b'A' => driver.answer(steps.number(), steps.number()),
            b'S' => {
                let (which, members) = (steps.number(), steps.number().min(8));
                let members = (0..members).map(|_| (steps.number() as i64, steps.number() as i64)).collect();
                driver.user_state(which, members);
            }
            b'E' => driver.unasked(steps.number(), steps.number(), steps.number()),
            b'T' => driver.pass(steps.number()),
            b'N' => driver.pass_to_deadline(),
            b'R' | b'W' | b'O' | b'B' => driver.happens(step),
            b'D' => driver.drain(steps.number()),
            _ => {}
        }
    }
    driver.settle();
}

struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A digit is its number, so that seeds can be read.
    fn number(&mut self) -> usize {
        let byte = self.byte().unwrap_or(b'0');
        usize::from(byte.wrapping_sub(b'0'))
    }

    fn through_nul(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0).map_or(self.0.len(), |at| at + 1);
        let (bytes, rest) = self.0.split_at(end);
        self.0 = rest;
        bytes
    }
}
