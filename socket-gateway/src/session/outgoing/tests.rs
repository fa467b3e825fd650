use std::time::Duration;

use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};

use super::*;

/// A queue whose frames are taken out by the test.
pub fn queue(limit: usize, low_water: usize) -> Arc<Outgoing> {
    let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
    Arc::new(Outgoing::new(Sink::taken(), Encoding::WebSocket, (limit, low_water), metrics))
}

/// What the session's task would be told.
pub fn news(queue: &Outgoing) -> News {
    match queue.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(news) => news,
        Poll::Pending => News::default(),
    }
}

fn frame(bytes: usize) -> Bytes {
    vec![b'x'; bytes].into()
}

fn lengths(queue: &Outgoing) -> Vec<usize> {
    queue.take(usize::MAX).iter().map(Bytes::len).collect()
}

#[test]
fn unsequenced_frames_go_first_when_the_queue_is_full() {
    let queue = queue(1000, 100);
    assert_eq!(queue.push(Class::Sequenced, frame(400)), Pushed::Queued);
    assert_eq!(queue.push(Class::Unsequenced, frame(400)), Pushed::Queued);
    assert_eq!(queue.push(Class::Unsequenced, frame(400)), Pushed::Dropped);
    assert_eq!(queue.push(Class::Sequenced, frame(401)), Pushed::Queued);
    assert_eq!(lengths(&queue), [400, 401]);
}

#[test]
fn a_reader_that_is_too_slow_overflows_by_bytes_and_gets_nothing_more() {
    let queue = queue(1000, 100);
    assert_eq!(queue.push(Class::Sequenced, frame(900)), Pushed::Queued);
    assert_eq!(queue.push(Class::Sequenced, frame(900)), Pushed::Closed);
    assert_eq!(queue.push(Class::Control, frame(1)), Pushed::Closed);
    assert!(news(&queue).overflowed);
    queue.push_last(frame(7));
    assert_eq!(lengths(&queue), [7]);
}

#[test]
fn replay_is_not_counted_and_waits_for_the_low_water() {
    let queue = queue(1000, 100);
    let waiter = Waiter { subscription: 1, conversation: 7 };
    assert!(!queue.wait_for_low_water(waiter));
    assert_eq!(queue.push(Class::Replay, frame(5000)), Pushed::Queued);
    assert_eq!(queue.push(Class::Sequenced, frame(100)), Pushed::Queued);
    assert!(queue.wait_for_low_water(waiter) && queue.wait_for_low_water(waiter));
    assert!(news(&queue).waiters.is_empty());
    assert_eq!(lengths(&queue), [5000, 100]);
    assert_eq!(news(&queue).waiters, [waiter].into());
    assert!(!queue.wait_for_low_water(waiter));
}

#[test]
fn replay_does_not_wait_for_what_may_be_dropped() {
    let queue = queue(1000, 100);
    let waiter = Waiter { subscription: 1, conversation: 7 };
    assert_eq!(queue.push(Class::Unsequenced, frame(500)), Pushed::Queued);
    assert!(!queue.wait_for_low_water(waiter));
    assert_eq!(queue.push(Class::Sequenced, frame(100)), Pushed::Queued);
    assert!(queue.wait_for_low_water(waiter));
    // It is dropped for this one.
    assert_eq!(queue.push(Class::Sequenced, frame(500)), Pushed::Queued);
    assert_eq!(lengths(&queue), [100, 500]);
    assert!(!queue.wait_for_low_water(waiter));
}

#[test]
fn a_closed_queue_takes_nothing() {
    let queue = queue(1000, 100);
    queue.close();
    assert_eq!(queue.push(Class::Sequenced, frame(1)), Pushed::Closed);
    queue.notify(Event::Detached { subscription: 1 });
    assert!(news(&queue).events.is_empty());
}

#[test]
fn no_event_comes_behind_the_last_frame() {
    let (queue, mut unflushed) = (queue(1000, 100), Unflushed::new());
    assert_eq!(queue.deliver(Class::Sequenced, frame(1), None, &mut unflushed), Pushed::Queued);
    queue.push_last(frame(2));
    assert_eq!(queue.deliver(Class::Sequenced, frame(3), None, &mut unflushed), Pushed::Closed);
    assert_eq!(queue.push(Class::Control, frame(4)), Pushed::Closed);
    queue.push_last(frame(5));
    assert_eq!(lengths(&queue), [1, 2, 5]);
}

#[test]
fn a_queue_is_handed_to_be_flushed_once() {
    let (queue, mut unflushed) = (queue(1000, 100), Unflushed::new());
    for _ in 0..3 {
        assert_eq!(queue.deliver(Class::Sequenced, frame(1), None, &mut unflushed), Pushed::Queued);
    }
    assert_eq!(unflushed.len(), 1);
    queue.flush(Instant::now());
    assert_eq!(queue.deliver(Class::Sequenced, frame(1), None, &mut unflushed), Pushed::Queued);
    assert_eq!(unflushed.len(), 2);
}

/// A queue on a real socket, and the client's end.
async fn connected(limit: usize) -> (Arc<Outgoing>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (read, write) = listener.accept().await.unwrap().0.into_split();
    drop(read);
    let metrics = Arc::new(Metrics::new(chassis::hops::HopRing::new(0)));
    (Arc::new(Outgoing::new(Sink::Socket(write), Encoding::WebSocket, (limit, 1), metrics)), client)
}

fn numbered(no: u32, len: usize) -> Bytes {
    no.to_be_bytes().into_iter().chain(std::iter::repeat_n(b'.', len - 4)).collect()
}

#[tokio::test]
async fn frames_come_whole_and_in_order_whoever_writes_them() {
    let (queue, mut client) = connected(64 << 20).await;
    let total: u32 = 20_000;
    let task = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move { std::future::poll_fn(|cx| queue.poll(cx)).await }
    });
    let mut unflushed = Unflushed::new();
    for no in 0..total {
        queue.deliver(Class::Sequenced, numbered(no, 500), None, &mut unflushed);
        if no % 7 == 0 {
            unflushed.drain(..).for_each(|queue| queue.flush(Instant::now()));
        }
    }
    unflushed.drain(..).for_each(|queue| queue.flush(Instant::now()));
    let mut got = vec![0; 500];
    for no in 0..total {
        let read = tokio::time::timeout(Duration::from_secs(10), client.read_exact(&mut got)).await;
        read.expect("it must go on").unwrap();
        assert_eq!(got[..], numbered(no, 500)[..]);
    }
    assert!(!task.is_finished(), "there was no news");
    task.abort();
}

#[tokio::test]
async fn a_frame_that_was_begun_is_ended_before_the_last_ones() {
    let (queue, mut client) = connected(1 << 20).await;
    std::future::poll_fn(|cx| queue.lock().sink_writable(cx)).await;
    let mut no = 0;
    while !queue.lock().overflowed {
        queue.deliver(Class::Sequenced, numbered(no, 100_000), None, &mut Unflushed::new());
        queue.flush(Instant::now());
        no += 1;
    }
    queue.push_last(Bytes::from_static(b"the end"));
    let writing = std::future::poll_fn(|cx| queue.poll_written(cx));
    let mut got = Vec::new();
    let reading = async {
        while !got.ends_with(b"the end") {
            client.read_buf(&mut got).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(writing, reading) }).await.unwrap();
    assert_eq!((got.len() - 7) % 100_000, 0, "only whole frames");
    assert!(got.len() > 100_000);
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_when_something_is_written() {
    let (queue, client) = connected(1 << 20).await;
    drop(client);
    let news = async {
        loop {
            queue.push(Class::Control, frame(1000));
            if let Poll::Ready(news) = queue.poll(&mut Context::from_waker(Waker::noop())) {
                return news;
            }
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), news).await.unwrap().broken);
}

impl State {
    fn sink_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.sink {
            Sink::Socket(socket) => socket.as_ref().poll_write_ready(cx).map(|ready| ready.unwrap()),
            Sink::Taken(_) => Poll::Ready(()),
        }
    }
}

#[test]
fn a_note_comes_with_its_frame_or_not_at_all() {
    let queue = queue(1000, 100);
    let note = |seq| Some(Event::Delivered { subscription: 1, conversation: 7, seq });
    assert_eq!(queue.push_noted(Class::Sequenced, frame(600), note(1)), Pushed::Queued);
    assert_eq!(queue.push_noted(Class::Unsequenced, frame(600), note(2)), Pushed::Dropped);
    let events = queue.take_events();
    assert!(matches!(events[..], [Event::Delivered { seq: 1, .. }]), "{events:?}");
}

#[test]
fn notes_do_not_pile_up_unseen() {
    struct Flag(std::sync::atomic::AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let flag = Arc::new(Flag(false.into()));
    let queue = queue(1 << 20, 100);
    assert!(queue.poll(&mut Context::from_waker(&Arc::clone(&flag).into())).is_pending());
    let woken_after = (1..=1000).find(|seq| {
        let note = Some(Event::Delivered { subscription: 1, conversation: 7, seq: *seq });
        queue.deliver(Class::Sequenced, frame(1), note, &mut Unflushed::new());
        flag.0.load(std::sync::atomic::Ordering::Relaxed)
    });
    assert_eq!(woken_after, Some(KEPT_NOTES as i64));
}
