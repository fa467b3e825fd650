-- The schema of the spine. Times are UTC with microseconds. Ids are snowflakes. Text that is compared byte for byte
-- (e-mail and username in their normalised form, tokens, client_message_id) is in a binary collation.

CREATE TABLE cluster_state (
    id    TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    -- Raised by an operator before the server takes writes again after a restore; read by every writing transaction.
    epoch BIGINT NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT INTO cluster_state (id, epoch) VALUES (1, 1);

CREATE TABLE node_leases (
    node_id    SMALLINT UNSIGNED NOT NULL PRIMARY KEY,
    holder     CHAR(36) NOT NULL,
    expires_at DATETIME(6) NOT NULL,
    -- The last millisecond (Unix) that the holder may stamp ids with, by its own clock. The next holder stamps above
    -- it only, so ids stay unique however far the clocks of cores differ.
    until_ms   BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE debezium_heartbeat (
    id      TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    beat_at DATETIME(6) NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE users (
    id            BIGINT NOT NULL PRIMARY KEY,
    -- Normalised (NFKC, case-folded), and as the person wrote it.
    email         VARCHAR(320) NOT NULL,
    username      VARCHAR(64) NOT NULL,
    display_email VARCHAR(320) NOT NULL,
    display_username VARCHAR(64) NOT NULL,
    display_name  VARCHAR(128) COLLATE utf8mb4_0900_ai_ci NOT NULL,
    password_hash VARCHAR(255) NOT NULL,
    -- Changes of this user's memberships, numbered from 1 without gaps.
    user_seq      BIGINT NOT NULL DEFAULT 0,
    created_at    DATETIME(6) NOT NULL,
    UNIQUE KEY email (email),
    UNIQUE KEY username (username)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE sessions (
    id         CHAR(36) NOT NULL PRIMARY KEY,
    user_id    BIGINT NOT NULL,
    created_at DATETIME(6) NOT NULL,
    revoked_at DATETIME(6) NULL,
    KEY user_id (user_id),
    FOREIGN KEY (user_id) REFERENCES users (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token, hexadecimal.
    token_hash CHAR(64) NOT NULL PRIMARY KEY,
    session_id CHAR(36) NOT NULL,
    expires_at DATETIME(6) NOT NULL,
    used_at    DATETIME(6) NULL,
    KEY session_id (session_id),
    FOREIGN KEY (session_id) REFERENCES sessions (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE workspaces (
    id         BIGINT NOT NULL PRIMARY KEY,
    slug       VARCHAR(64) NOT NULL,
    name       VARCHAR(128) COLLATE utf8mb4_0900_ai_ci NOT NULL,
    created_at DATETIME(6) NOT NULL,
    UNIQUE KEY slug (slug)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT INTO workspaces (id, slug, name, created_at) VALUES (1, 'default', 'Default', UTC_TIMESTAMP(6));

CREATE TABLE workspace_members (
    workspace_id BIGINT NOT NULL,
    user_id      BIGINT NOT NULL,
    role         VARCHAR(16) NOT NULL,
    joined_at    DATETIME(6) NOT NULL,
    PRIMARY KEY (workspace_id, user_id),
    KEY user_id (user_id),
    FOREIGN KEY (workspace_id) REFERENCES workspaces (id),
    FOREIGN KEY (user_id) REFERENCES users (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE conversations (
    id           BIGINT NOT NULL PRIMARY KEY,
    workspace_id BIGINT NOT NULL,
    kind         VARCHAR(16) NOT NULL,
    visibility   VARCHAR(16) NOT NULL,
    name         VARCHAR(128) COLLATE utf8mb4_0900_ai_ci NULL,
    -- Both users of a dm, `<smaller id>:<larger id>`: one dm a pair and workspace.
    dm_pair      VARCHAR(48) NULL,
    created_by   BIGINT NOT NULL,
    created_at   DATETIME(6) NOT NULL,
    archived_at  DATETIME(6) NULL,
    -- The head: every durable event takes the next seq under this row's lock.
    last_seq     BIGINT NOT NULL DEFAULT 0,
    message_no   BIGINT NOT NULL DEFAULT 0,
    UNIQUE KEY dm_pair (workspace_id, dm_pair),
    KEY created_by (created_by),
    FOREIGN KEY (workspace_id) REFERENCES workspaces (id),
    FOREIGN KEY (created_by) REFERENCES users (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE conversation_members (
    conversation_id BIGINT NOT NULL,
    user_id         BIGINT NOT NULL,
    -- One row an interval of membership, ends included.
    joined_seq      BIGINT NOT NULL,
    left_seq        BIGINT NULL,
    joined_user_seq BIGINT NOT NULL,
    left_user_seq   BIGINT NULL,
    role            VARCHAR(16) NOT NULL,
    PRIMARY KEY (conversation_id, user_id, joined_seq),
    KEY user_id (user_id, left_seq),
    FOREIGN KEY (conversation_id) REFERENCES conversations (id),
    FOREIGN KEY (user_id) REFERENCES users (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Partitioned: no foreign keys; a test checks for orphans.
CREATE TABLE messages (
    conversation_id   BIGINT NOT NULL,
    seq               BIGINT NOT NULL,
    id                BIGINT NOT NULL,
    message_no        BIGINT NOT NULL,
    sender_id         BIGINT NOT NULL,
    kind              VARCHAR(16) NOT NULL,
    body              MEDIUMTEXT NOT NULL,
    thread_root_id    BIGINT NULL,
    -- utf8mb4_bin pads with spaces when it compares ("a" and "a " were one key); this one compares byte for byte.
    client_message_id VARCHAR(128) COLLATE utf8mb4_0900_bin NOT NULL,
    -- SHA-256 of what the client asked for: a retry with another content is a conflict.
    request_hash      BINARY(32) NOT NULL,
    epoch             BIGINT NOT NULL,
    created_at        DATETIME(6) NOT NULL,
    deleted_at        DATETIME(6) NULL,
    PRIMARY KEY (conversation_id, seq),
    UNIQUE KEY id (conversation_id, id),
    UNIQUE KEY client_message_id (conversation_id, sender_id, client_message_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
PARTITION BY KEY (conversation_id) PARTITIONS 64;

-- Positions of each user in each conversation; they never move backwards.
CREATE TABLE message_acks (
    user_id         BIGINT NOT NULL,
    conversation_id BIGINT NOT NULL,
    delivered_seq   BIGINT NOT NULL DEFAULT 0,
    read_seq        BIGINT NOT NULL DEFAULT 0,
    updated_at      DATETIME(6) NOT NULL,
    PRIMARY KEY (user_id, conversation_id),
    KEY conversation_id (conversation_id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What Debezium streams, and the event log that gaps are filled from.
CREATE TABLE message_producer_outbox (
    id                 CHAR(36) NOT NULL,
    aggregatetype      VARCHAR(32) NOT NULL,
    aggregateid        VARCHAR(32) NOT NULL,
    type               VARCHAR(64) NOT NULL,
    -- Text on purpose: a JSON column is serialised again by the server.
    payload            MEDIUMTEXT NOT NULL,
    conversation_id    BIGINT NULL,
    seq                BIGINT NULL,
    epoch              BIGINT NOT NULL,
    actor_id           BIGINT NULL,
    subject_id         BIGINT NULL,
    target_seq         BIGINT NULL,
    user_seq           BIGINT NULL,
    traceparent        VARCHAR(55) NULL,
    tracingspancontext VARCHAR(255) NULL,
    created_at         DATETIME(6) NOT NULL,
    PRIMARY KEY (id, created_at),
    KEY conversation_seq (conversation_id, seq)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin
PARTITION BY RANGE COLUMNS (created_at) (PARTITION p_max VALUES LESS THAN (MAXVALUE));
