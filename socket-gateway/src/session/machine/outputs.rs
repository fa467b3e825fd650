//! What the machine puts out. One input can have several of a session's timers fire, and an early one can end it: what
//! the others want is dropped here.

use super::Output;

#[derive(Debug, Default)]
pub(super) struct Outputs {
    waiting: Vec<Output>,
    ended: bool,
}

impl Outputs {
    /// Nothing comes behind [`Output::Disconnect`].
    pub fn put(&mut self, output: Output) {
        if !self.ended {
            self.ended = matches!(output, Output::Disconnect(_));
            self.waiting.push(output);
        }
    }

    pub fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.waiting)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}
