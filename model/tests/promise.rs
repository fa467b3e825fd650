//! Every reachable state of every system keeps the promise.

use model::{Setup, check, setups};

/// Visits all states; prints how many there are.
fn holds(setup: Setup) {
    let verdict = check::check(setup);
    println!("{}: {} states, {} steps deep", verdict.setup, verdict.states, verdict.depth);
    if let Some((promise, _)) = verdict.broken.first() {
        let trace = verdict.trace(promise).expect("a broken promise has its steps");
        panic!("{}: broken after {} states: {promise}\n{trace}", verdict.setup, verdict.states);
    }
    assert!(verdict.rests, "{} never comes to rest, so it shows little", verdict.setup);
}

#[test]
fn a_message_is_stored_once_and_in_order_whatever_becomes_of_cores_streams_and_locks() {
    holds(setups::commit());
}

#[test]
fn a_core_may_die_while_a_message_is_on_its_way_to_a_client() {
    holds(setups::whole());
}

#[test]
fn connector_and_worker_may_repeat_what_they_did() {
    holds(setups::route());
}

#[test]
fn a_dead_letter_is_delivered_all_the_same() {
    holds(setups::poison());
}

#[test]
fn a_subscription_may_begin_at_any_moment() {
    holds(setups::attach());
}

#[test]
fn interest_may_be_given_up_and_taken_again() {
    holds(setups::interest());
}

#[test]
fn redis_may_lose_everything_or_its_tail_twice() {
    holds(setups::redis());
}

#[test]
fn redis_may_lose_everything_while_somebody_subscribes() {
    holds(setups::redis_attach());
}

#[test]
fn redis_and_a_worker_may_fail_at_once() {
    holds(setups::redis_worker());
}

#[test]
fn redis_may_lose_everything_while_interest_is_given_up_and_taken_again() {
    holds(setups::redis_interest());
}

#[test]
fn of_two_gateways_one_may_die_while_clients_subscribe_at_both() {
    holds(setups::elsewhere());
}

#[test]
fn a_gateway_may_die_and_its_client_goes_on_elsewhere() {
    holds(setups::death());
}

#[test]
fn who_joins_gets_everything_from_the_join_on() {
    holds(setups::join());
}

#[test]
fn who_joins_while_their_gateway_dies_gets_everything_from_the_join_on() {
    holds(setups::join_death());
}

#[test]
fn who_joins_and_leaves_is_shown_their_own_time_once() {
    holds(setups::visit());
}

#[test]
fn who_joins_and_leaves_while_their_gateway_dies_is_shown_their_own_time_once() {
    holds(setups::visit_death());
}

#[test]
fn who_joins_leaves_and_joins_again_is_shown_their_own_times() {
    holds(setups::membership());
}

#[test]
fn who_joins_a_channel_leaves_it_and_joins_again_misses_nothing_of_their_own_times() {
    holds(setups::channel());
}

#[test]
fn a_short_membership_of_a_channel_is_shown_whole() {
    holds(setups::channel_visit());
}

#[test]
fn who_is_removed_gets_all_up_to_their_last_seq() {
    holds(setups::removal());
}

#[test]
fn from_every_state_there_is_a_way_to_rest_without_another_fault() {
    let systems = [
        setups::commit(),
        setups::whole(),
        setups::route(),
        setups::poison(),
        setups::interest(),
        setups::redis_attach(),
        setups::redis_interest(),
        setups::elsewhere(),
        setups::join(),
        setups::join_death(),
        setups::visit(),
        setups::visit_death(),
        setups::removal(),
    ];
    for setup in systems {
        let name = setup.name;
        let (states, traps) = check::traps(setup);
        assert_eq!(traps, 0, "{name}: of {states} states");
    }
}
