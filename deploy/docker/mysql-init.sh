# Run once by the MySQL image, on an empty data folder, after it made the database `chat` and the user `chat`.
# Sourced, not executed, so `docker_process_sql` of the image is there. Not written to the binlog: users are no
# business of its readers.
docker_process_sql --database=mysql <<SQL
SET SESSION sql_log_bin = 0;
CREATE USER IF NOT EXISTS 'debezium'@'%' IDENTIFIED BY '$(cat /run/secrets/mysql-debezium)';
GRANT SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'debezium'@'%';
-- CREATE only because a grant on a table that a migration will make is refused without it.
GRANT CREATE, INSERT, UPDATE ON chat.debezium_heartbeat TO 'debezium'@'%';
SQL
