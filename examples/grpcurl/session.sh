#!/usr/bin/env bash
# Calls every gRPC method of core with grpcurl, which learns all it needs by server reflection.
# CORE: host:port; TOKEN: a user's access token; USER_ID: that user; CONVERSATION: a new conversation of theirs;
# SERVICE_TOKEN: a token of the gateways' service client. README.md says where to get them.
set -euo pipefail
: "${CORE:?}" "${TOKEN:?}" "${USER_ID:?}" "${CONVERSATION:?}" "${SERVICE_TOKEN:?}"

# run AS METHOD JSON…: prints the command, calls, prints the answer. A refusal is an answer too.
run() {
    local as=$1 method=$2 json token=$TOKEN
    shift 2
    json=$(printf '%s\n' "$@")
    if [[ $as == service ]]; then token=$SERVICE_TOKEN; fi
    printf '\n$ grpcurl -plaintext -emit-defaults -H "authorization: Bearer <%s token>" -d '"'%s'"' %s %s\n' \
        "$as" "$json" '$CORE' "$method"
    grpcurl -plaintext -emit-defaults -H "authorization: Bearer $token" -d "$json" "$CORE" "$method" 2>&1 || true
}

printf '$ grpcurl -plaintext $CORE list\n'
grpcurl -plaintext "$CORE" list
printf '\n$ grpcurl -plaintext $CORE list chat.v1.MessageService\n'
grpcurl -plaintext "$CORE" list chat.v1.MessageService
printf '\n$ grpcurl -plaintext $CORE describe chat.v1.CreateMessageRequest\n'
grpcurl -plaintext "$CORE" describe chat.v1.CreateMessageRequest

printf '\n# Health and greeting\n'
run user grpc.health.v1.Health/Check '{}'
run user chat.v1.AuthService/Hello '{"name": "grpcurl"}'
run user chat.v1.AuthService/VerifyAccessToken '{"access_token": "no.token.atall"}'

printf '\n# Messages: one, the same again, one that is refused, a stream, a refusal on a stream, offsets\n'
run user chat.v1.MessageService/CreateMessage \
    "{\"conversation_id\": $CONVERSATION, \"body\": \"hello\", \"client_message_id\": \"first\"}"
run user chat.v1.MessageService/CreateMessage \
    "{\"conversation_id\": $CONVERSATION, \"body\": \"hello\", \"client_message_id\": \"first\"}"
run user chat.v1.MessageService/CreateMessage \
    "{\"conversation_id\": $CONVERSATION, \"body\": \"bye\", \"client_message_id\": \"first\"}"
run user chat.v1.MessageService/StreamCreateMessages \
    "{\"conversation_id\": $CONVERSATION, \"body\": \"one\", \"client_message_id\": \"s1\", \"request_no\": 1}" \
    "{\"conversation_id\": $CONVERSATION, \"body\": \"two\", \"client_message_id\": \"s2\", \"request_no\": 2}"
run user chat.v1.MessageService/StreamCreateMessages \
    "{\"conversation_id\": $CONVERSATION, \"body\": \"\", \"client_message_id\": \"s3\", \"request_no\": 3}"
run user chat.v1.MessageService/StreamAckOffsets \
    "{\"conversation_id\": $CONVERSATION, \"seq\": 4, \"kind\": \"ACK_KIND_READ\", \"epoch\": 1, \"request_no\": 1}"

printf '\n# Connections: what a gateway tells core\n'
connection="{\"connection_id\": \"by-hand\", \"user_id\": $USER_ID, \"gateway_id\": \"example\", \
\"incarnation\": \"none\", \"device_id\": \"terminal\", \"workspace_id\": 1}"
run service chat.v1.ConnectionManager/RegisterConnection "{\"connection\": $connection}"
run service chat.v1.ConnectionManager/UpdateLastPing \
    '{"gateway_id": "example", "incarnation": "none", "connection_ids": ["unheard-of"]}'
# No gateway "example" renews a lease, so its connections do not count, and a worker's sweeper forgets them at any time.
run service chat.v1.ConnectionManager/GetConnectionsByUser "{\"user_id\": $USER_ID}"
run service chat.v1.ConnectionManager/GetOnlineUsers '{"workspace_id": 999, "page_size": 10}'
run service chat.v1.ConnectionManager/UnregisterConnection \
    '{"connection_id": "by-hand", "gateway_id": "example", "incarnation": "none"}'

printf '\n# What only gateways ask\n'
run user chat.v1.GatewayService/ReadHeads "{\"conversation_ids\": [$CONVERSATION]}"
run service chat.v1.GatewayService/ReadHeads "{\"conversation_ids\": [$CONVERSATION]}"
run service chat.v1.GatewayService/ReadHeads "{\"conversation_ids\": [$CONVERSATION, 7], \"locked\": \"LOCKED_ROWS_SKIP\"}"
run service chat.v1.GatewayService/RegisterConnections "{\"connections\": [$connection]}"
run service chat.v1.GatewayService/UnregisterConnections \
    '{"gateway_id": "example", "incarnation": "none", "connection_ids": ["by-hand"]}'
run service chat.v1.GatewayService/AttachSubscriptions \
    "{\"subscriptions\": [{\"user_id\": $USER_ID, \"conversation_id\": $CONVERSATION}]}"
run service chat.v1.GatewayService/ReadUserStates "{\"user_ids\": [$USER_ID]}"
run service chat.v1.GatewayService/ReadEvents "{\"conversation_id\": $CONVERSATION, \"after_seq\": 1, \"limit\": 1}"
run service chat.v1.GatewayService/PublishEphemeral \
    "{\"conversation_id\": $CONVERSATION, \"user_id\": $USER_ID, \"type\": \"TYPING\"}"
