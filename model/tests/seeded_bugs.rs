//! The negative control: with a guard taken out, the same systems break the promise that it holds up.
//!
//! Without the bug they are checked whole in `promise.rs`, with the same faults and the same layers on and off.

use model::{SeededBug, check, setups};

fn is_found(bug: SeededBug) {
    let seeded = setups::seeded().into_iter().find(|(seeded, ..)| *seeded == bug);
    let (_, setup, promise) = seeded.expect("each bug has a system that shows it");
    assert!(setups::all().iter().any(|checked| checked.name == setup.name), "{} is not checked without it", setup.name);
    let verdict = check::check_for(setup.with(bug), promise);
    let Some(trace) = verdict.trace(promise) else {
        panic!("{bug:?} was not found in {}, among {} states", verdict.setup, verdict.states);
    };
    println!("{bug:?} in `{}`, found among {} states. Broken: {promise}\n{trace}", verdict.setup, verdict.states);
}

macro_rules! seeded {
    ($($name:ident: $bug:ident,)*) => {
        $(
            #[test]
            fn $name() {
                is_found(SeededBug::$bug);
            }
        )*

        #[test]
        fn every_seeded_bug_has_a_test() {
            let tested = [$(SeededBug::$bug),*];
            assert!(setups::seeded().iter().all(|(bug, ..)| tested.contains(bug)));
        }
    };
}

seeded! {
    an_offset_stored_before_the_xadd_loses_a_message: OffsetBeforeXadd,
    without_the_duplicate_check_a_message_is_shown_twice: DuplicateCheckOff,
    without_the_gap_check_a_message_is_left_out: GapCheckOff,
    without_comparing_heads_a_loss_of_redis_loses_a_message: HeadsNotCompared,
    reading_before_registering_loses_a_message: ReadBeforeRegister,
    a_plain_read_loses_a_message: PlainRead,
    without_nomkstream_a_dead_stream_comes_back: XaddMakesStreams,
    an_outbox_row_in_a_transaction_of_its_own_loses_a_message: OutboxRowOnItsOwn,
    a_fresh_client_message_id_shows_a_message_twice: FreshMessageId,
    a_join_without_user_seq_is_not_noticed: JoinWithoutUserSeq,
    an_answer_to_a_released_conversation_must_not_go_to_its_successor: AnswerToSuccessor,
    a_conversation_that_ended_must_not_be_attached_by_an_older_state: EndedAttachedAgain,
    without_ended_memberships_a_short_one_is_not_noticed: EndedNotTold,
}
