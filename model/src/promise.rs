//! What must be true: the promise, and the rules that it stands on.

use stateright::{Model as _, Property};

use crate::{
    Action, State,
    check::System,
    client::{Breach, Client},
    database::{What, bit, next_after},
};

/// No client is shown a seq twice or out of order, none is left out, and no message comes under two seqs.
pub const EXACTLY_ONCE_IN_ORDER: &str = "each subscription is shown every seq exactly once and in order";
/// No client is told that something is lost, and delivery begins where it was asked to.
pub const NOTHING_GIVEN_UP: &str = "nothing is given up: RESUMED never says that something is lost";
/// Who is no member at a seq is not shown it.
pub const MEMBERS_ONLY: &str = "nobody is shown what happened while they were no member";
/// The first rule.
pub const ROW_AND_EVENT: &str = "each seq has its row and its event, or neither";
/// A RECEIPT means committed; a message has one row, and messages of a session have theirs in the order sent.
pub const DURABLE_ONCE: &str = "an acknowledged message is stored exactly once, in the order sent";
/// When nothing is left to be done, everybody has everything.
pub const ALL_DELIVERED: &str = "at rest everything is acknowledged, and delivered to every member";
/// Of an incarnation that is gone, no stream is left.
pub const NOTHING_LEFT_BEHIND: &str = "at rest Redis holds no stream of a gateway that is gone";
/// Not a promise: that the model gets there at all.
pub const COMES_TO_REST: &str = "it comes to rest with everything sent";

pub fn properties() -> Vec<Property<System>> {
    vec![
        Property::always(EXACTLY_ONCE_IN_ORDER, |_, state| {
            !breached(state, &[Breach::NotAbove, Breach::LeftOut, Breach::ShownTwice])
        }),
        Property::always(NOTHING_GIVEN_UP, |_, state| !breached(state, &[Breach::GivenUp])),
        Property::always(MEMBERS_ONLY, |_, state| !breached(state, &[Breach::NotAMember])),
        Property::always(ROW_AND_EVENT, |_, state: &State| {
            let all = (1..=state.database.head()).fold(0, |seqs, seq| seqs | bit(seq));
            state.database.logged == all
        }),
        Property::always(DURABLE_ONCE, is_durable_once),
        Property::always(ALL_DELIVERED, |system, state| is_all_delivered(system, state) || !is_at_rest(system, state)),
        Property::always(NOTHING_LEFT_BEHIND, |system, state: &State| {
            state.redis.streams.keys().all(|stream| state.redis.leases.contains(stream)) || !is_at_rest(system, state)
        }),
        Property::sometimes(COMES_TO_REST, |system, state: &State| {
            state.lane.sent == system.0.messages && is_at_rest(system, state)
        }),
    ]
}

fn breached(state: &State, breaches: &[Breach]) -> bool {
    state.clients.iter().any(|client| client.breach.is_some_and(|breach| breaches.contains(&breach)))
}

/// Nothing can happen any more but what may as well not happen.
pub fn is_at_rest(system: &System, state: &State) -> bool {
    // Most states are not, for reasons that are seen at once.
    if state.database.transaction.is_some() || state.executors.iter().any(|executor| executor.batch.is_some()) {
        return false;
    }
    let mut actions = Vec::new();
    system.actions(state, &mut actions);
    !actions.iter().any(Action::must_happen)
}

fn is_durable_once(system: &System, state: &State) -> bool {
    let rows = &state.database.rows;
    let of = |message: u8| rows.iter().filter(move |row| row.message == message);
    let once = (0..system.0.messages).all(|message| of(message).count() <= 1);
    // In the order of seq, so of commits.
    let in_order = rows.is_sorted_by_key(|row| row.message);
    let acknowledged = (0..system.0.messages).filter(|message| state.lane.acknowledged & (1 << message) != 0);
    let durable = acknowledged.into_iter().all(|message| of(message).next().is_some());
    let as_said = rows.iter().all(|row| state.database.what(row.seq) == What::Message(row.message));
    once && in_order && durable && as_said
}

fn is_all_delivered(system: &System, state: &State) -> bool {
    let acknowledged = state.lane.acknowledged == (1 << system.0.messages) - 1;
    let delivered = |(user, client): (u8, &Client)| {
        let visible = state.database.visible(system.0.kind, user);
        // A client of somebody who was never a member has nowhere to be.
        let Some(cursor) = client.cursor else { return visible.is_empty() };
        next_after(&visible, cursor).is_none_or(|seq| seq > state.database.head())
    };
    acknowledged && (!system.0.pipeline || (0..).zip(&state.clients).all(delivered))
}
