import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.lang.reflect.Type;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.springframework.messaging.simp.stomp.StompCommand;
import org.springframework.messaging.simp.stomp.StompFrameHandler;
import org.springframework.messaging.simp.stomp.StompHeaders;
import org.springframework.messaging.simp.stomp.StompSession;
import org.springframework.messaging.simp.stomp.StompSessionHandlerAdapter;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;
import org.springframework.web.socket.WebSocketHttpHeaders;
import org.springframework.web.socket.client.WebSocketClient;
import org.springframework.web.socket.client.standard.StandardWebSocketClient;
import org.springframework.web.socket.messaging.WebSocketStompClient;
import org.springframework.web.socket.sockjs.client.RestTemplateXhrTransport;
import org.springframework.web.socket.sockjs.client.SockJsClient;
import org.springframework.web.socket.sockjs.client.WebSocketTransport;

/**
 * Spring's STOMP client, as it is published, at a gateway: over a plain WebSocket and over SockJS, all at the same time.
 *
 * <p>Reads what to do from standard input: {@code [{"way": …, "url": …, "token": …, "other": …, "conversation": …}, …]}. Prints a line
 * for each check that held; the first that does not ends the program with 1. The one with the token {@code other} speaks,
 * because what one says oneself counts as delivered without an ACK.
 */
public final class SpringClient {
    private static final int MESSAGES = 20;
    private static final long DEADLINE_S = 30;
    /** Asked for in both directions. */
    private static final long HEARTBEAT_MS = 1000;
    /** Spring gives up after three heart-beats that did not come, a gateway sooner. */
    private static final long SILENCE_MS = 4 * HEARTBEAT_MS;
    /** For heart-beats and receipts that do not come. */
    private static final ThreadPoolTaskScheduler SCHEDULER = new ThreadPoolTaskScheduler();

    private record Way(String way, String url, String token, String other, String conversation) {}

    private record Heard(StompHeaders headers, JsonNode event) {}

    public static void main(String[] arguments) throws Exception {
        Way[] ways = new ObjectMapper().readValue(System.in, Way[].class);
        SCHEDULER.setPoolSize(2);
        SCHEDULER.initialize();
        List<Thread> threads = new ArrayList<>();
        for (Way way : ways) {
            threads.add(new Thread(() -> {
                try {
                    new SpringClient(way).run();
                } catch (Throwable error) {
                    error.printStackTrace();
                    System.exit(1);
                }
            }));
        }
        threads.forEach(Thread::start);
        for (Thread thread : threads) {
            thread.join();
        }
        System.exit(0);
    }

    private final Way way;
    private final WebSocketStompClient client;

    private SpringClient(Way way) {
        this.way = way;
        this.client = new WebSocketStompClient(transport(way.way()));
        client.setTaskScheduler(SCHEDULER);
        client.setDefaultHeartbeat(new long[] {HEARTBEAT_MS, HEARTBEAT_MS});
    }

    private static WebSocketClient transport(String way) {
        return switch (way) {
            case "websocket" -> new StandardWebSocketClient();
            case "sockjs websocket" ->
                new SockJsClient(List.of(new WebSocketTransport(new StandardWebSocketClient())));
            case "sockjs xhr-streaming" -> new SockJsClient(List.of(new RestTemplateXhrTransport()));
            default -> throw new IllegalArgumentException("no way called " + way);
        };
    }

    private void run() throws Exception {
        converse();
        isRefusedASend();
        isRefusedWithABadToken();
    }

    private void converse() throws Exception {
        Watcher watcher = new Watcher();
        StompSession session = connect(way.token(), watcher).get(DEADLINE_S, TimeUnit.SECONDS);
        session.setAutoReceipt(true);
        StompHeaders connected = watcher.connected.get(DEADLINE_S, TimeUnit.SECONDS);
        check("connected with STOMP 1.2", "1.2".equals(connected.getFirst("version")), connected);
        long[] beats = connected.getHeartbeat();
        check("heart-beats agreed", beats != null && beats[0] == HEARTBEAT_MS && beats[1] == HEARTBEAT_MS, connected);

        StompSession other = connect(way.other(), new Watcher()).get(DEADLINE_S, TimeUnit.SECONDS);
        other.setAutoReceipt(true);
        BlockingQueue<Heard> inbox = new LinkedBlockingQueue<>();
        StompHeaders subscribe = new StompHeaders();
        subscribe.setDestination("/topic/conversations/" + way.conversation());
        subscribe.setAck("client-individual");
        StompSession.Subscription subscription = session.subscribe(subscribe, into(inbox));
        receipt(subscription);
        check("SUBSCRIBE has its receipt", true, null);
        Heard resumed = next(inbox);
        check("RESUMED comes first", "RESUMED".equals(resumed.event().get("type").asText()), resumed);

        List<StompSession.Receiptable> sends = new ArrayList<>();
        for (int number = 0; number < MESSAGES; number++) {
            sends.add(say(other, text(number)));
        }
        List<Long> receipts = new ArrayList<>();
        for (StompSession.Receiptable send : sends) {
            receipts.add(Long.parseLong(receipt(send).getFirst("seq")));
        }
        check("each SEND has its receipt, in order", receipts.equals(receipts.stream().sorted().distinct().toList()), receipts);
        List<Heard> heard = new ArrayList<>();
        for (int number = 0; number < MESSAGES; number++) {
            Heard message = next(inbox);
            String text = message.event().get("data").get("body").asText();
            boolean right = text.equals(text(number)) && seq(message) == receipts.get(number);
            if (!right || message.headers().getAck() == null) {
                throw new AssertionError(way.way() + ": the message number " + number + " is " + message);
            }
            heard.add(message);
        }
        check("messages come once, in order, with an ack header", inbox.isEmpty(), inbox);

        for (Heard message : heard.subList(0, MESSAGES - 1)) {
            receipt(session.acknowledge(message.headers().getAck(), true));
        }
        receipt(session.acknowledge(heard.get(MESSAGES - 1).headers().getAck(), false));
        check("each ACK and the NACK have their receipt", true, null);

        String trouble = watcher.trouble.poll(SILENCE_MS, TimeUnit.MILLISECONDS);
        check("only heart-beats for a while, and the session lives", trouble == null && session.isConnected(), trouble);

        subscription.unsubscribe();
        receipt(say(other, "not heard"));
        check("nothing comes after UNSUBSCRIBE", inbox.isEmpty(), inbox);
        session.disconnect();
        other.disconnect();
        check("nothing went wrong", watcher.trouble.isEmpty(), watcher.trouble);
    }

    private void isRefusedASend() throws Exception {
        Watcher watcher = new Watcher();
        StompSession session = connect(way.token(), watcher).get(DEADLINE_S, TimeUnit.SECONDS);
        StompHeaders headers = new StompHeaders();
        headers.setDestination("/app/nowhere");
        headers.setReceipt("refused:1");
        session.send(headers, new byte[0]);
        String first = watcher.trouble.poll(DEADLINE_S, TimeUnit.SECONDS);
        check("ERROR names the receipt of its SEND", "ERROR invalid_destination refused:1".equals(first), first);
        String second = watcher.trouble.poll(DEADLINE_S, TimeUnit.SECONDS);
        check("and the close comes after it", "closed".equals(second), second);
    }

    private void isRefusedWithABadToken() throws Exception {
        Watcher watcher = new Watcher();
        connect("bad", watcher);
        String first = watcher.trouble.poll(DEADLINE_S, TimeUnit.SECONDS);
        check("a bad token is answered with ERROR", "ERROR unauthenticated null".equals(first), first);
        String second = watcher.trouble.poll(DEADLINE_S, TimeUnit.SECONDS);
        check("and then with the close", "closed".equals(second), second);
    }

    private CompletableFuture<StompSession> connect(String token, Watcher watcher) {
        StompHeaders connect = new StompHeaders();
        connect.add("Authorization", "Bearer " + token);
        return client.connectAsync(way.url(), (WebSocketHttpHeaders) null, connect, watcher);
    }

    private StompSession.Receiptable say(StompSession session, String text) {
        StompHeaders headers = new StompHeaders();
        headers.setDestination("/app/conversations/" + way.conversation() + "/messages");
        String body = new ObjectMapper().createObjectNode().put("body", text).toString();
        return session.send(headers, body.getBytes(StandardCharsets.UTF_8));
    }

    private String text(int number) {
        return way.way() + " " + number + ": \"quoted\" \\n \u2028 é 語 😀";
    }

    private static long seq(Heard heard) {
        return Long.parseLong(heard.headers().getFirst("seq"));
    }

    private Heard next(BlockingQueue<Heard> inbox) throws InterruptedException {
        Heard heard = inbox.poll(DEADLINE_S, TimeUnit.SECONDS);
        if (heard == null) {
            throw new AssertionError(way.way() + ": nothing came in time");
        }
        return heard;
    }

    private static StompHeaders receipt(StompSession.Receiptable asked) throws Exception {
        CompletableFuture<StompHeaders> receipt = new CompletableFuture<>();
        asked.addReceiptTask(receipt::complete);
        asked.addReceiptLostTask(() -> receipt.completeExceptionally(new AssertionError("no receipt in time")));
        return receipt.get(DEADLINE_S, TimeUnit.SECONDS);
    }

    private void check(String what, boolean holds, Object seen) {
        if (!holds) {
            throw new AssertionError(way.way() + ": not so: " + what + ", but " + seen);
        }
        System.out.println(way.way() + ": " + what);
    }

    private static StompFrameHandler into(BlockingQueue<Heard> inbox) {
        return new StompFrameHandler() {
            @Override
            public Type getPayloadType(StompHeaders headers) {
                return byte[].class;
            }

            @Override
            public void handleFrame(StompHeaders headers, Object payload) {
                try {
                    inbox.add(new Heard(headers, new ObjectMapper().readTree((byte[]) payload)));
                } catch (java.io.IOException error) {
                    throw new java.io.UncheckedIOException(error);
                }
            }
        };
    }

    /** What comes besides messages. */
    private static final class Watcher extends StompSessionHandlerAdapter {
        final CompletableFuture<StompHeaders> connected = new CompletableFuture<>();
        final BlockingQueue<String> trouble = new LinkedBlockingQueue<>();

        @Override
        public void afterConnected(StompSession session, StompHeaders headers) {
            connected.complete(headers);
        }

        @Override
        public Type getPayloadType(StompHeaders headers) {
            return byte[].class;
        }

        /** ERROR. */
        @Override
        public void handleFrame(StompHeaders headers, Object payload) {
            trouble.add("ERROR " + headers.getFirst("code") + " " + headers.getReceiptId());
        }

        @Override
        public void handleException(
                StompSession session, StompCommand command, StompHeaders headers, byte[] payload, Throwable error) {
            trouble.add("exception " + error);
        }

        @Override
        public void handleTransportError(StompSession session, Throwable error) {
            trouble.add(error instanceof org.springframework.messaging.simp.stomp.ConnectionLostException ? "closed" : "" + error);
        }
    }
}
