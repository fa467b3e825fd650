-- When each epoch began, and why: what `core-services epoch show` prints.
CREATE TABLE epochs (
    epoch    BIGINT NOT NULL PRIMARY KEY,
    began_at DATETIME(6) NOT NULL,
    reason   VARCHAR(1024) NOT NULL
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
INSERT INTO epochs (epoch, began_at, reason) SELECT epoch, UTC_TIMESTAMP(6), 'installed' FROM cluster_state;
