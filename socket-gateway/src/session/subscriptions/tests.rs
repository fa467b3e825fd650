use super::*;

/// Of attaching reads, below where anybody joins again.
const HEAD: i64 = 11;

fn member(conversation: i64, joined_seq: i64, joined_user_seq: i64) -> Membership {
    Membership { conversation, joined_seq, joined_user_seq }
}

fn state(user_seq: i64, memberships: &[Membership]) -> Arc<UserState> {
    state_with(user_seq, memberships, &[])
}

fn state_with(user_seq: i64, memberships: &[Membership], ended: &[Membership]) -> Arc<UserState> {
    Arc::new(UserState { user_seq, memberships: memberships.to_vec(), ended: ended.to_vec() })
}

fn starts(plans: &[Plan]) -> Vec<(i64, Start, i64)> {
    plans.iter().map(|plan| (plan.conversation, plan.start, plan.user_seq)).collect()
}

#[test]
fn the_first_state_starts_at_the_heads_and_later_ones_at_the_joins() {
    let mut queue = UserQueue::default();
    let plans = queue.state_changed(state(2, &[member(7, 1, 1), member(8, 3, 2)]), &Resumed::default());
    assert_eq!(starts(&plans), [(7, Start::Head, 2), (8, Start::Head, 2)]);
    assert!(!queue.is_settled());
    assert_eq!((queue.attached(7, HEAD), queue.attached(8, HEAD), queue.is_settled()), (None, None, true));
    let more = state(3, &[member(7, 1, 1), member(8, 3, 2), member(9, 4, 3)]);
    assert_eq!(starts(&queue.state_changed(more, &Resumed::default())), [(9, Start::Join { seq: 4 }, 3)]);
}

#[test]
fn a_resume_names_cursors_and_what_was_joined_since_starts_at_its_join_in_order() {
    let mut resumed = Resumed::default();
    let at = Position { seq: 12, epoch: Some(1) };
    let conversations: HashMap<_, _> = [(ConversationId(7), at), (ConversationId(6), at)].into();
    assert!(resumed.add(Resume { conversations: conversations.clone(), user_seq: Some(2) }, 2));
    let more = Resume { conversations: [(ConversationId(8), at)].into(), user_seq: None };
    assert!(!resumed.add(more, 2));
    let mut queue = UserQueue::default();
    let all = [member(5, 1, 2), member(7, 1, 1), member(8, 9, 4), member(9, 4, 3)];
    let plans = queue.state_changed(state(4, &all), &resumed);
    let after = Start::After { seq: 12, epoch: Some(1) };
    let expected = [(5, Start::Head, 2), (7, after, 2), (6, after, 2), (9, Start::Join { seq: 4 }, 3)];
    assert_eq!(starts(&plans), expected);
    // The second join is told of only when the first was.
    assert_eq!(queue.attached(9, HEAD).map(|plan| (plan.conversation, plan.user_seq)), Some((8, 4)));
}

#[test]
fn who_left_and_joined_again_goes_on_at_the_new_join() {
    let mut queue = UserQueue::default();
    queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
    queue.attached(7, HEAD);
    assert_eq!(queue.state_changed(state(3, &[member(7, 20, 3)]), &Resumed::default()), []);
    let plan = queue.ended(7, 15).unwrap();
    assert_eq!((plan.conversation, plan.start), (7, Start::Join { seq: 20 }));
    queue.attached(7, HEAD);
    assert_eq!(queue.ended(7, 25), None);
}

#[test]
fn a_state_that_was_read_before_the_end_of_a_membership_does_not_begin_it_again() {
    let mut queue = UserQueue::default();
    queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
    queue.attached(7, HEAD);
    assert_eq!(queue.ended(7, 15), None);
    let before = state(2, &[member(7, 1, 1), member(9, 4, 2)]);
    let plans = queue.state_changed(before, &Resumed::default());
    assert_eq!(starts(&plans), [(9, Start::Join { seq: 4 }, 2)]);
    queue.attached(9, HEAD);
    assert_eq!(queue.state_changed(state(3, &[member(9, 4, 2)]), &Resumed::default()), []);
    let again = state(4, &[member(7, 20, 4), member(9, 4, 2)]);
    assert_eq!(starts(&queue.state_changed(again, &Resumed::default())), [(7, Start::Join { seq: 20 }, 4)]);
}

#[test]
fn a_join_that_was_told_before_the_end_of_an_older_attempt_is_attached() {
    let mut resumed = Resumed::default();
    let conversations = [(ConversationId(7), Position { seq: 12, epoch: None })].into();
    assert!(resumed.add(Resume { conversations, user_seq: Some(2) }, 10));
    let mut queue = UserQueue::default();
    assert_eq!(queue.state_changed(state(2, &[]), &resumed).len(), 1);
    assert_eq!(queue.state_changed(state(3, &[member(7, 20, 3)]), &resumed), []);
    // The attaching read had been made before the join.
    let plan = queue.ended(7, 0).unwrap();
    assert_eq!((plan.conversation, plan.start), (7, Start::Join { seq: 20 }));
    // The same membership is not tried over and over.
    assert_eq!(queue.ended(7, 0), None);
    assert!(queue.is_settled());
}

#[test]
fn a_membership_that_came_and_went_unseen_is_attached_in_its_turn() {
    let mut queue = UserQueue::default();
    queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
    queue.attached(7, HEAD);
    assert_eq!(queue.known(&Resumed::default()), Some(1));
    let ended = [member(8, 5, 2), member(8, 9, 4), member(7, 1, 1)];
    let plans = queue.state_changed(state_with(6, &[member(7, 1, 1), member(9, 3, 6)], &ended), &Resumed::default());
    assert_eq!(starts(&plans), [(8, Start::Join { seq: 5 }, 2)]);
    assert_eq!(queue.attached(8, HEAD).map(|plan| (plan.conversation, plan.user_seq)), Some((9, 6)));
    // All of it is delivered by then, and an older state does not begin it again.
    assert_eq!((queue.ended(8, 12), queue.attached(9, HEAD), queue.is_settled()), (None, None, true));
    let again = state_with(6, &[member(7, 1, 1), member(9, 3, 6)], &ended);
    assert_eq!(queue.state_changed(again, &Resumed::default()), []);
}

#[test]
fn who_resumes_is_told_of_what_came_and_went_while_they_were_away() {
    let mut resumed = Resumed::default();
    let conversations = [(ConversationId(6), Position { seq: 12, epoch: None })].into();
    assert!(resumed.add(Resume { conversations, user_seq: Some(2) }, 10));
    let mut queue = UserQueue::default();
    assert_eq!(queue.known(&resumed), Some(2));
    // Of 5 the client knew; 6 goes on where it says; 8 was joined again since.
    let ended = [member(5, 1, 1), member(6, 20, 3), member(7, 4, 5), member(8, 2, 7)];
    let plans = queue.state_changed(state_with(9, &[member(8, 30, 9)], &ended), &resumed);
    let after = Start::After { seq: 12, epoch: None };
    assert_eq!(starts(&plans), [(6, after, 4), (7, Start::Join { seq: 4 }, 5)]);
    let plan = queue.attached(7, HEAD).unwrap();
    assert_eq!((plan.conversation, plan.start, plan.user_seq), (8, Start::Join { seq: 2 }, 9));
    // Who says nothing of what they know has missed nothing.
    let plans = UserQueue::default().state_changed(state_with(9, &[], &ended), &Resumed::default());
    assert_eq!(plans, []);
}

#[test]
fn a_short_membership_behind_one_that_is_still_delivered_waits_for_its_end() {
    let mut queue = UserQueue::default();
    queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
    queue.attached(7, HEAD);
    assert_eq!(queue.state_changed(state_with(4, &[], &[member(7, 20, 3)]), &Resumed::default()), []);
    assert_eq!(queue.state_changed(state(4, &[]), &Resumed::default()), []);
    let plan = queue.ended(7, 15).unwrap();
    assert_eq!((plan.conversation, plan.start), (7, Start::Join { seq: 20 }));
    queue.attached(7, HEAD);
    assert_eq!(queue.ended(7, 22), None);
    // One that the attaching read has shown already is not begun again.
    queue.state_changed(state(5, &[member(7, 30, 5)]), &Resumed::default());
    queue.attached(7, HEAD);
    queue.state_changed(state_with(8, &[], &[member(7, 40, 7)]), &Resumed::default());
    assert_eq!((queue.ended(7, 45), queue.is_settled()), (None, true));
}

#[test]
fn who_joins_again_is_attached_though_a_state_names_what_ended_before() {
    // Another device of the user has resumed from further back, and both are told the same.
    let ended = [member(7, 1, 1)];
    let mut queue = UserQueue::default();
    queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
    queue.attached(7, HEAD);
    assert_eq!(queue.ended(7, 15), None);
    let plans = queue.state_changed(state_with(3, &[member(7, 20, 3)], &ended), &Resumed::default());
    assert_eq!(starts(&plans), [(7, Start::Join { seq: 20 }, 3)]);
    queue.attached(7, HEAD);
    assert_eq!(queue.ended(7, 25), None);
    // It has come and gone in one read.
    let plans = queue.state_changed(state_with(6, &[], &[member(7, 1, 1), member(7, 30, 5)]), &Resumed::default());
    assert_eq!(starts(&plans), [(7, Start::Join { seq: 30 }, 6)]);
}

#[test]
fn what_was_delivered_in_one_go_is_not_begun_again_by_states_that_were_read_before() {
    let mut resumed = Resumed::default();
    let conversations = [(ConversationId(7), Position { seq: 5, epoch: None })].into();
    assert!(resumed.add(Resume { conversations, user_seq: Some(1) }, 10));
    let mut queue = UserQueue::default();
    queue.state_changed(state(1, &[member(7, 1, 1)]), &resumed);
    queue.attached(7, HEAD);
    // The attaching read shows two memberships, both over; a state is on its way that knows the end of one.
    assert_eq!(queue.ended(7, 20), None);
    assert_eq!(queue.state_changed(state(2, &[]), &resumed), []);
    let plans = queue.state_changed(state_with(4, &[], &[member(7, 12, 3)]), &resumed);
    assert_eq!(starts(&plans), []);
    // Whoever reads later knows of all that ended by then.
    assert_eq!(queue.ended_at.len(), 0);
}

/// 7 was joined again, at `user_seq` 7; 9 behind that.
fn joined_again(head: Option<i64>) -> UserQueue {
    let mut resumed = Resumed::default();
    let conversations = [(ConversationId(7), Position { seq: 12, epoch: None })].into();
    assert!(resumed.add(Resume { conversations, user_seq: Some(6) }, 10));
    let mut queue = UserQueue::default();
    assert_eq!(starts(&queue.state_changed(state(6, &[]), &resumed)).len(), 1);
    if let Some(head) = head {
        assert_eq!(queue.attached(7, head), None);
    }
    let plans = queue.state_changed(state(8, &[member(7, 16, 7), member(9, 1, 8)]), &resumed);
    assert_eq!(starts(&plans), [], "its RESUMED would say 8, and 7 was not told");
    queue
}

#[test]
fn no_join_is_told_before_an_earlier_one_whose_conversation_has_not_ended_yet() {
    let mut queue = joined_again(Some(15));
    let plan = queue.ended(7, 15).unwrap();
    assert_eq!((plan.conversation, plan.start, plan.user_seq), (7, Start::Join { seq: 16 }, 7));
    let plan = queue.attached(7, 16).unwrap();
    assert_eq!((plan.conversation, plan.user_seq), (9, 8));
    assert_eq!((queue.attached(9, 1), queue.is_settled()), (None, true));
}

#[test]
fn a_later_join_waits_until_it_is_known_what_the_attaching_read_has_shown() {
    // It has shown the renewed membership, so nothing ends.
    let mut queue = joined_again(None);
    assert_eq!(queue.attached(7, 16).map(|plan| (plan.conversation, plan.user_seq)), Some((9, 8)));
    // It has not: its end comes first.
    let mut queue = joined_again(None);
    assert_eq!(queue.attached(7, 15), None);
    assert_eq!(queue.ended(7, 15).map(|plan| plan.conversation), Some(7));
    assert_eq!(queue.attached(7, 16).map(|plan| plan.conversation), Some(9));
    // It can't be made for now, and is made again with the next state.
    let mut queue = joined_again(None);
    assert_eq!(queue.refused(7, Instant::now()), None);
    let again = state(9, &[member(7, 16, 7), member(9, 1, 8), member(10, 1, 9)]);
    let plans = queue.state_changed(again, &Resumed::default());
    assert_eq!(plans.iter().map(|plan| plan.conversation).collect::<Vec<_>>(), [7]);
    assert_eq!(queue.attached(7, 16).map(|plan| (plan.conversation, plan.user_seq)), Some((9, 8)));
}

#[test]
fn a_renewed_membership_that_is_over_before_its_turn_is_told_all_the_same() {
    for (third, last) in [(None, 4), (Some(member(7, 30, 5)), 5)] {
        let mut queue = UserQueue::default();
        queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
        queue.attached(7, HEAD);
        assert_eq!(queue.state_changed(state(3, &[member(7, 20, 3)]), &Resumed::default()), []);
        let now: Vec<_> = third.into_iter().collect();
        assert_eq!(queue.state_changed(state(last, &now), &Resumed::default()), []);
        let plan = queue.ended(7, 15).unwrap();
        assert_eq!((plan.conversation, plan.start, plan.user_seq), (7, Start::Join { seq: 20 }, last));
    }
}

#[test]
fn no_more_is_said_than_was_read_first() {
    let mut resumed = Resumed::default();
    assert!(resumed.add(Resume { conversations: HashMap::new(), user_seq: Some(5) }, 1));
    let mut queue = UserQueue::default();
    // Joined and left again, 6 and 7, and joined another, while the state was read.
    let plans = queue.state_changed(state(5, &[member(7, 1, 1), member(9, 4, 8)]), &resumed);
    assert_eq!(starts(&plans), [(7, Start::Head, 5), (9, Start::Join { seq: 4 }, 5)]);
}

#[test]
fn what_an_older_epoch_has_told_holds_nothing_up() {
    let mut queue = joined_again(Some(15));
    let plan = queue.attached(7, 12).map(|plan| plan.conversation);
    assert_eq!(plan, Some(9));
}

#[test]
fn a_join_before_a_renewed_one_says_no_more_than_itself() {
    let mut queue = UserQueue::default();
    queue.state_changed(state(1, &[member(7, 1, 1)]), &Resumed::default());
    queue.attached(7, HEAD);
    let plans = queue.state_changed(state(4, &[member(9, 1, 2), member(7, 20, 4)]), &Resumed::default());
    assert_eq!(starts(&plans), [(9, Start::Join { seq: 1 }, 2)]);
}

#[tokio::test]
async fn what_could_not_be_attached_is_tried_again_with_the_same_start() {
    let mut queue = UserQueue::default();
    let one = state(1, &[member(7, 1, 1)]);
    let plans = queue.state_changed(Arc::clone(&one), &Resumed::default());
    queue.refused(7, Instant::now());
    assert!(!queue.is_settled() && queue.retry_at.is_some());
    assert_eq!(queue.state_changed(one, &Resumed::default()), plans);
    assert!(queue.retry_at.is_none());
}
