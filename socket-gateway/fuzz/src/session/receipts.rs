//! Receipts that were asked for, and answered.

use std::collections::HashMap;

/// By id: how often it was asked for, how often of frames that are due an answer, and how often it was answered.
#[derive(Debug, Default)]
pub struct Receipts(HashMap<String, Receipt>);

#[derive(Debug, Default)]
struct Receipt {
    asked: usize,
    due: usize,
    answered: usize,
}

impl Receipts {
    pub fn asked(&mut self, id: &str, due: bool) {
        let receipt = self.0.entry(comparable(id)).or_default();
        receipt.asked += 1;
        receipt.due += usize::from(due);
    }

    pub fn answered(&mut self, id: &str) {
        let receipt = self.0.entry(comparable(id)).or_default();
        receipt.answered += 1;
        assert!(receipt.answered <= receipt.asked, "receipt {id:?} is answered once too often: {receipt:?}");
    }

    pub fn missing(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, receipt)| receipt.answered < receipt.due).map(|(id, _)| id.as_str()).collect()
    }
}

/// Older versions can't write every character, and trim.
fn comparable(id: &str) -> String {
    id.replace(['\r', '\n', '\0'], " ").trim().to_owned()
}
