//! What the terminal client prints.

use std::{
    collections::HashMap,
    io::{self, IsTerminal as _},
};

use chrono::{DateTime, Local};

use crate::rest::Rest;

/// Prints lines; knows people's names.
pub struct Screen {
    rest: Rest,
    token: String,
    /// By user id; as many as people speak in one conversation.
    names: HashMap<i64, String>,
    /// Colours and cursor movements are understood.
    terminal: bool,
}

impl Screen {
    pub fn new(rest: Rest, token: String) -> Self {
        Self { rest, token, names: HashMap::new(), terminal: io::stdout().is_terminal() }
    }

    /// Somebody said something at that time (RFC 3339).
    pub async fn message(&mut self, sender: i64, at: &str, text: &str) {
        let time = DateTime::parse_from_rfc3339(at).map(|at| at.with_timezone(&Local).format("%H:%M").to_string());
        let time = time.unwrap_or_default();
        let name = self.name(sender).await;
        let text = printable(text);
        if self.terminal {
            println!("\x1b[2m{time}\x1b[0m \x1b[1m{name}:\x1b[0m {text}");
        } else {
            println!("{time} {name}: {text}");
        }
    }

    pub async fn membership(&mut self, user: i64, what: &str) {
        let name = self.name(user).await;
        self.notice(&format!("{name} {what}"));
    }

    /// Something about the client itself.
    pub fn notice(&self, text: &str) {
        let text = printable(text);
        if self.terminal {
            println!("\x1b[2m- {text}\x1b[0m");
        } else {
            println!("- {text}");
        }
    }

    /// A line was typed: it is taken off the screen, because it comes back as a message.
    pub fn typed(&self, by_hand: bool) {
        if by_hand && self.terminal {
            print!("\x1b[1A\x1b[2K");
        }
    }

    async fn name(&mut self, user: i64) -> String {
        if let Some(name) = self.names.get(&user) {
            return name.clone();
        }
        match self.rest.name_of(&self.token, user).await {
            Ok(name) => {
                let name = printable(&name);
                self.names.insert(user, name.clone());
                name
            }
            Err(_) => user.to_string(),
        }
    }
}

/// Without control characters: what others write must not move this terminal's cursor.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
