/* Clients of relayload that use Engine.IO's long polling. Included by relayload.c, whose helpers it uses.
 *
 * A client has one connection, and sends one request after another on it. A GET waits at the server until there are
 * packets; if a packet needs an answer, a POST comes before the next GET. So a client is at times between two GETs, as
 * browsers are, and what the server has for it then waits there.
 */

enum { SEPARATOR = 0x1e }; /* between packets of one payload */

/* Writes the GET that opens a session, or waits for packets. Returns its length. */
static size_t format_poll(const struct client *c, char *out, size_t size)
{
    return format(out, size, "GET /socket.io/?EIO=4&transport=polling%s%s HTTP/1.1\r\nHost: %s:%d\r\n\r\n",
                  c->sid ? "&sid=" : "", c->sid ? c->sid : "", host, ntohs(node_of(c->number)->sin_port));
}

static void send_request(struct client *c, const char *request, size_t length)
{
    if (write(c->fd, request, length) != (ssize_t)length)
        drop(c);
}

static void poll_again(struct client *c)
{
    char request[512];
    c->posting = false;
    send_request(c, request, format_poll(c, request, sizeof request));
}

static void post(struct client *c, const char *packets)
{
    char request[1200];
    c->posting = true;
    send_request(c, request,
                 format(request, sizeof request,
                        "POST /socket.io/?EIO=4&transport=polling&sid=%s HTTP/1.1\r\nHost: %s:%d\r\n"
                        "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: %zu\r\n\r\n%s",
                        c->sid, host, ntohs(node_of(c->number)->sin_port), strlen(packets), packets));
}

/* Keeps the session's id, which is in the open packet. */
static void keep_sid(struct client *c, const char *packet, size_t size)
{
    static const char name[] = "\"sid\":\"";
    const char *at = memmem(packet, size, name, sizeof name - 1);
    const char *end = at ? memchr(at + sizeof name - 1, '"', (size_t)(packet + size - at) - (sizeof name - 1)) : NULL;
    if (end)
        c->sid = strndup(at + sizeof name - 1, (size_t)(end - at) - (sizeof name - 1));
}

/* Handles a packet. Returns whether it has sent a request, which is then the client's present one. */
static bool on_packet(struct client *c, const char *packet, size_t size)
{
    char message[600];
    if (is_push((const unsigned char *)packet, size)) {
        count_push((const unsigned char *)packet, size);
        return false;
    }
    if (packet[0] == '2') {
        pings++;
        post(c, "3");
        return true;
    }
    if (c->state == AWAITS_OPEN && packet[0] == '0') {
        keep_sid(c, packet, size);
        c->state = AWAITS_NAMESPACE;
        c->sid ? post(c, "40") : drop(c);
        return true;
    }
    if (c->state == AWAITS_NAMESPACE && size >= 2 && !memcmp(packet, "40", 2)) {
        format_registration(c, message, sizeof message);
        post(c, message);
        if (c->state != DEAD)
            settle(c, READY);
        return true;
    }
    others++;
    return false;
}

/* Handles the packets of one answer, and sends the next request. */
static void on_payload(struct client *c, const char *payload, size_t size)
{
    bool sent = false;
    for (const char *at = payload, *end = payload + size; at < end && c->state != DEAD;) {
        const char *next = memchr(at, SEPARATOR, (size_t)(end - at));
        sent |= on_packet(c, at, (size_t)((next ? next : end) - at));
        at = next ? next + 1 : end;
    }
    if (!sent && c->state != DEAD)
        poll_again(c);
}

/* Handles the answer that has arrived, if it is complete: there is never more than one. */
static void take_answer(struct client *c)
{
    char *start = (char *)c->in, *end = memmem(start, c->len, "\r\n\r\n", 4);
    if (!end)
        return;
    *end = 0;
    const char *length = strcasestr(start, "\r\ncontent-length:");
    size_t body = length ? (size_t)atol(length + 17) : 0, head = (size_t)(end + 4 - start);
    *end = '\r';
    if (!length || c->len - head > body || memcmp(start, "HTTP/1.1 200", 12)) {
        drop(c);
        return;
    }
    if (c->len - head < body)
        return;
    c->len = 0;
    if (c->posting)
        poll_again(c);
    else
        on_payload(c, start + head, body);
}
