use proptest::prelude::*;

use super::*;

fn message(conversation: i64, seq: i64) -> Message {
    Message { conversation, seq }
}

fn acks(mode: AckMode, many: bool, max: usize, sent: &[(i64, i64)]) -> Acks {
    let mut acks = Acks::new(mode, many, max).unwrap();
    sent.iter().for_each(|(conversation, seq)| acks.sent(message(*conversation, *seq)));
    acks
}

fn moved(acks: &mut Acks, conversation: i64, seq: i64) -> Vec<(i64, i64)> {
    let mut moved = acks.acknowledge(message(conversation, seq), usize::MAX).unwrap();
    moved.sort_by_key(|message| message.conversation);
    moved.into_iter().map(|message| (message.conversation, message.seq)).collect()
}

#[test]
fn message_ids_are_read_as_they_are_written() {
    assert_eq!(Message::parse("7-12"), Some(Some(message(7, 12))));
    assert_eq!(Message::parse("u-0197"), Some(None));
    assert_eq!(Message::parse("e-3"), Some(None));
    for id in ["", "7", "7-", "-12", "7-12-1", "07-12", "7-0", "+7-12", "7- 12", "u-", "x-1", "7-99999999999999999999"]
    {
        assert_eq!(Message::parse(id), None, "{id}");
    }
}

#[test]
fn seqs_that_do_not_come_are_passed_over() {
    let mut acks = acks(AckMode::ClientIndividual, false, 10, &[(7, 1), (7, 2), (7, 6), (7, 7)]);
    assert_eq!(moved(&mut acks, 7, 1), [(7, 1)]);
    assert_eq!(moved(&mut acks, 7, 2), [(7, 2)]);
    assert_eq!(moved(&mut acks, 7, 7), [(7, 5)]);
    assert_eq!(moved(&mut acks, 7, 6), [(7, 7)]);
}

#[test]
fn after_a_reset_seqs_count_anew() {
    let mut acks = acks(AckMode::Client, false, 10, &[(7, 8), (7, 9)]);
    assert_eq!(moved(&mut acks, 7, 9), [(7, 9)]);
    acks.sent(message(7, 4));
    assert!(acks.was_sent(message(7, 9)) && acks.was_sent(message(7, 4)));
    assert_eq!(moved(&mut acks, 7, 4), [(7, 4)]);
}

#[test]
fn what_is_forgotten_of_the_order_is_covered_by_the_next_ack_of_what_is_not() {
    let sent = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1)];
    let mut acks = acks(AckMode::Client, true, 2, &sent);
    // Too long ago to say what came before it: only its own conversation.
    assert_eq!(moved(&mut acks, 1, 2), [(1, 2)]);
    assert_eq!(moved(&mut acks, 2, 2), [(2, 2)]);
    let mut acks = self::acks(AckMode::Client, true, 2, &sent);
    assert_eq!(moved(&mut acks, 3, 1), [(1, 2), (2, 2), (3, 1)]);
}

#[test]
fn runs_of_one_conversation_cost_one_entry() {
    let sent: Vec<_> = (1..=1000).map(|seq| (7, seq)).chain([(8, 1)]).collect();
    let mut acks = acks(AckMode::Client, true, 2, &sent);
    assert_eq!(moved(&mut acks, 7, 500), [(7, 500)]);
    assert_eq!(moved(&mut acks, 8, 1), [(7, 1000), (8, 1)]);
}

proptest! {
    /// Against the plain meaning of each mode: sets of what was sent and acknowledged.
    #[test]
    fn prefixes_are_what_the_modes_say(
        individual in any::<bool>(),
        steps in proptest::collection::vec((0..3i64, any::<proptest::sample::Index>(), any::<bool>()), 1..80),
    ) {
        let mode = if individual { AckMode::ClientIndividual } else { AckMode::Client };
        let mut acks = Acks::new(mode, true, usize::MAX).unwrap();
        let mut sent: Vec<(i64, i64)> = Vec::new();
        let mut done: Vec<bool> = Vec::new();
        let mut prefixes: HashMap<i64, i64> = HashMap::new();
        for (conversation, which, ack) in steps {
            if !ack || sent.is_empty() {
                let seq = sent.iter().filter(|(id, _)| *id == conversation).count() as i64 + 1;
                sent.push((conversation, seq));
                done.push(false);
                acks.sent(message(conversation, seq));
                continue;
            }
            let index = which.index(sent.len());
            let covered = if individual { index..=index } else { 0..=index };
            done[covered].fill(true);
            let (conversation, seq) = sent[index];
            for prefix in acks.acknowledge(message(conversation, seq), usize::MAX).unwrap() {
                prefixes.insert(prefix.conversation, prefix.seq);
            }
            for conversation in 0..3 {
                let of = sent.iter().zip(&done).filter(|((id, _), _)| *id == conversation);
                let prefix = of.take_while(|(_, done)| **done).last().map(|((_, seq), _)| *seq);
                prop_assert_eq!(prefixes.get(&conversation).copied(), prefix);
            }
        }
    }
}

#[test]
fn a_report_waits_for_the_one_before_it() {
    let now = Instant::now();
    let mut reports = Reports::default();
    assert_eq!(reports.report(message(7, 1)), Some(message(7, 1)));
    assert_eq!((reports.report(message(7, 3)), reports.report(message(7, 2))), (None, None));
    assert_eq!(reports.report(message(8, 1)), Some(message(8, 1)));
    assert_eq!(reports.answered(message(7, 1), false, now), Some(message(7, 3)));
    assert_eq!(reports.answered(message(7, 3), true, now), None);
    assert_eq!((reports.retry_at.is_some(), reports.retry()), (true, vec![message(7, 3)]));
    assert_eq!(reports.answered(message(7, 3), false, now), None);
    assert_eq!(reports.answered(message(8, 1), false, now), None);
    assert!(!reports.is_waited_for() && reports.conversations.is_empty());
}
