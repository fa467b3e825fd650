use super::*;

const LIMITS: Limits = Limits { transactions: 2, frames: 3, bytes: 100 };

fn held() -> Held {
    let work = Work::Ack(Acknowledged { subscription: None, message: None, positive: true });
    Held { work, receipt: None }
}

fn opened(ids: &[&str]) -> Transactions {
    let mut transactions = Transactions::new(LIMITS);
    ids.iter().for_each(|id| transactions.begin((*id).to_owned()).unwrap());
    transactions
}

#[test]
fn limits_are_over_all_transactions_and_what_is_over_gives_room() {
    let mut transactions = opened(&["a", "b"]);
    assert!(transactions.begin("c".into()).unwrap_err().message.contains("2 transactions"));
    transactions.hold("a", held(), 40).unwrap();
    assert!(transactions.hold("b", held(), 60).unwrap_err().message.contains("100 bytes"));
    transactions.hold("b", held(), 58).unwrap();
    assert!(transactions.abort("a") && !transactions.abort("a"));
    transactions.hold("b", held(), 40).unwrap();
    transactions.hold("b", held(), 0).unwrap();
    assert!(transactions.hold("b", held(), 0).unwrap_err().message.contains("3 frames"));
}

#[test]
fn a_lost_transaction_holds_nothing_and_can_not_be_committed() {
    let mut transactions = opened(&["a"]);
    transactions.hold("a", held(), 90).unwrap();
    transactions.lose("a", &Refusal::new(Code::InvalidBody, "no JSON"));
    transactions.lose("a", &Refusal::new(Code::Forbidden, "later"));
    transactions.hold("a", held(), 1000).unwrap();
    let refusal = transactions.commit("a", 1, None).unwrap().unwrap_err();
    assert_eq!(refusal.code, Code::InvalidBody);
    assert!(!transactions.is_open("a") && !transactions.is_committing());
}

#[test]
fn a_commit_is_over_when_each_of_its_frames_was_answered() {
    let mut transactions = opened(&["a"]);
    transactions.hold("a", held(), 1).unwrap();
    transactions.hold("a", held(), 1).unwrap();
    assert_eq!(transactions.commit("a", 5, Some("c".into())).unwrap().unwrap().len(), 2);
    transactions.settled(5, None);
    assert_eq!(transactions.committed(5), None);
    transactions.settled(5, Some(&Refusal::new(Code::Conflict, "x")));
    let committed = transactions.committed(5).unwrap();
    assert_eq!(committed.receipt.as_deref(), Some("c"));
    assert_eq!(committed.result.unwrap_err().code, Code::Conflict);
    assert!(transactions.commit("a", 6, None).is_none());
}
