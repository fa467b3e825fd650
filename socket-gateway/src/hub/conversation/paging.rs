//! Reading the log for followers: one page at a time for all of a conversation's.
//!
//! A follower that needs the log waits. When no read is on its way the next one begins: behind the cursor of one that
//! waits, going round through all of them, so that who is far behind holds up nobody. All who find their next event in
//! the page go on with it.

use super::{Conversation, Effect, LogRead, Page, Reader, follower::Follower};
use crate::refusal::Refusal;

/// Subscriptions are refused while the log can't be read for their first page so often.
const OPENING_TRIES: u32 = 5;

impl Conversation {
    /// Begins the next read, if somebody waits and none is on its way.
    pub(super) fn read_page(&mut self) {
        let Some(position) = self.position.filter(|_| !self.paging) else { return };
        let waiting = self.followers.iter().filter(|follower| follower.is_waiting());
        let next = waiting.map(|follower| follower.cursor).min_by_key(|cursor| (*cursor < self.paged_to, *cursor));
        let Some(after) = next else { return };
        self.paging = true;
        // What is at hand from there on is not read.
        let ring = self.ring.first_seq().filter(|first| *first > after + 1);
        let at_hand = [ring, self.pages.first_above(after + 1)].into_iter().flatten().min();
        self.read_log(Reader::Followers, after, at_hand.map_or(position, |first| first - 1), position);
    }

    pub(super) fn page_was_read(&mut self, read: LogRead, result: Result<Page, Refusal>) {
        let page = match result {
            Ok(page) => page,
            Err(refusal) => return self.page_failed(read, &refusal),
        };
        self.paging = false;
        self.metrics.log_pages.inc();
        if read.generation == self.generation {
            // Where the log does not go on behind a cursor, it no longer holds what is missing.
            let goes_on = page.events.first().map_or(read.up_to, |event| event.seq - 1);
            let lost =
                |follower: &&mut Follower| follower.is_waiting() && (read.after..goes_on).contains(&follower.cursor);
            let position = self.position.unwrap_or(read.position);
            self.followers.iter_mut().filter(lost).for_each(|follower| follower.has_lost(position));
            self.paged_to = page.events.last().map_or(read.after, |event| event.seq) + 1;
            self.pages.add(page.events, page.room);
        }
        self.advance_followers(|follower| follower.is_waiting() || follower.start_over.is_some());
    }

    fn page_failed(&mut self, read: LogRead, refusal: &Refusal) {
        if read.tries >= OPENING_TRIES {
            self.followers.retain(|follower| {
                let refused = follower.is_waiting() && follower.is_opening();
                if refused {
                    super::refuse(&follower.attach, refusal);
                }
                !refused
            });
        }
        self.paging = self.followers.iter().any(Follower::is_waiting);
        if self.paging {
            self.effects.push(Effect::ReadLog(LogRead { tries: read.tries + 1, ..read }));
        }
    }
}
