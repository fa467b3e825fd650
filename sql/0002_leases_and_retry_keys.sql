-- The last millisecond (Unix) that the holder may stamp ids with, by its own clock. The next holder stamps above it
-- only, so ids stay unique however far the clocks of cores differ.
ALTER TABLE node_leases ADD COLUMN until_ms BIGINT NOT NULL DEFAULT 0;

-- utf8mb4_bin pads with spaces when it compares: "a" and "a " were one key. utf8mb4_0900_bin compares byte for byte.
ALTER TABLE messages MODIFY client_message_id VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin NOT NULL;
