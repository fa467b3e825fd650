# syntax=docker/dockerfile:1
# Kafka (one KRaft node) and Kafka Connect with Debezium, from the jars that connect/pom.xml pins: the same files,
# properties and JVM options as the stack without Docker.
#
#   docker build -f deploy/docker/kafka.Dockerfile --target kafka   -t switchboard/kafka   .
#   docker build -f deploy/docker/kafka.Dockerfile --target connect -t switchboard/connect .

ARG JAVA_VERSION=17

FROM maven:3-eclipse-temurin-${JAVA_VERSION} AS jars
COPY connect/pom.xml /build/pom.xml
RUN --mount=type=cache,target=/root/.m2 \
    set -eu; \
    copy() { mvn --batch-mode --file /build/pom.xml --activate-profiles "$1" \
        dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$2"; }; \
    copy kafka /jars/kafka; \
    copy debezium /jars/plugins/debezium

FROM eclipse-temurin:${JAVA_VERSION}-jre AS runtime
# The data folder is here so that a named volume mounted on it has its owner.
RUN useradd --system --uid 10002 --user-group --no-create-home --home-dir /nonexistent kafka \
    && install -d -o kafka -g kafka -m 0700 /var/lib/kafka
COPY --from=jars /jars/kafka /opt/kafka/libs
COPY deploy/kafka/log4j2.properties /opt/kafka/config/log4j2.properties
COPY --chmod=0755 deploy/docker/healthcheck /usr/local/bin/healthcheck
USER 10002:10002
STOPSIGNAL SIGTERM

FROM runtime AS kafka
COPY deploy/kafka/server.properties /opt/kafka/config/server.properties
COPY --chmod=0755 deploy/docker/start-kafka /usr/local/bin/start-kafka
EXPOSE 9092 19092
VOLUME /var/lib/kafka
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["healthcheck", "kafka", "9092"]
ENTRYPOINT ["start-kafka"]

FROM runtime AS connect
COPY --from=jars /jars/plugins /opt/kafka/plugins
COPY connect/worker.properties /opt/kafka/config/worker.properties
COPY --chmod=0755 deploy/docker/start-connect /usr/local/bin/start-connect
EXPOSE 8084
HEALTHCHECK --interval=5s --timeout=3s --start-period=90s --retries=3 CMD ["healthcheck", "http", "8084", "/"]
ENTRYPOINT ["start-connect"]
