// One end of a measurement, over libzmq's C API, with libzmq's defaults.
//
// Speaks the protocol of `tidegate mq bench-peer`, so that the runner can measure either program; its roles are described in
// crates/tidegate/src/cli/mq/bench/peer/mod.rs.
//
//   cc -O2 -o libzmq_peer libzmq_peer.c -lzmq -lpthread
//   libzmq_peer version
//   libzmq_peer ROLE bind|connect ENDPOINT [NAME=VALUE]...

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

// ---- What the runner asks for ----

static const char *SERVER_PUBLIC = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
static const char *SERVER_SECRET = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6";
static const char *CLIENT_PUBLIC = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
static const char *CLIENT_SECRET = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

static const char *endpoint;
static int binds;
static size_t size = 64, count = 1;
static uint64_t least;
static double warmup = 1, measure = 5, longest, rate = 1;
static int stalled;
static const char *security = "";
static void *context;

static int say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vprintf(format, arguments);
    va_end(arguments);
    fflush(stdout);
    return length;
}

static void check(int failed, const char *what) {
    if (failed) {
        fprintf(stderr, "libzmq_peer: %s: %s\n", what, zmq_strerror(zmq_errno()));
        _exit(1);
    }
}

static void setting(const char *text) {
    const char *value = strchr(text, '=');
    size_t length = value ? (size_t)(value - text) : 0;
#define IS(name) (length == sizeof name - 1 && !strncmp(text, name, length))
    value = value ? value + 1 : "";
    if (IS("size")) size = strtoull(value, NULL, 10);
    else if (IS("count")) count = strtoull(value, NULL, 10);
    else if (IS("least")) least = strtoull(value, NULL, 10);
    else if (IS("warmup")) warmup = atof(value);
    else if (IS("measure")) measure = atof(value);
    else if (IS("longest")) longest = atof(value);
    else if (IS("rate")) rate = atof(value);
    else if (IS("stalled")) stalled = atoi(value);
    else if (IS("security")) security = value;
    else {
        say("{\"cannot\":\"there is no setting %s\"}\n", text);
        _exit(0);
    }
#undef IS
}

// ---- Time, orders, sockets, messages ----

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static pthread_mutex_t order_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t order_came = PTHREAD_COND_INITIALIZER;
static unsigned orders;

// Counts lines of standard input; ends the process with it, so that nothing is left when the runner is gone.
static void *read_orders(void *unused) {
    (void)unused;
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1) {
        if (byte != '\n') continue;
        pthread_mutex_lock(&order_lock);
        orders++;
        pthread_cond_signal(&order_came);
        pthread_mutex_unlock(&order_lock);
    }
    _exit(0);
}

static void await_order(void) {
    say("{\"ready\":true}\n");
    pthread_mutex_lock(&order_lock);
    while (!orders) pthread_cond_wait(&order_came, &order_lock);
    orders--;
    pthread_mutex_unlock(&order_lock);
}

// After its result an end stays, so that the runner can look at it.
static void stay(void) {
    for (;;) pause();
}

static void *idle_socket(int type) {
    void *socket = zmq_socket(context, type);
    check(!socket, "socket");
    int zero = 0, one = 1;
    check(zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero), "linger");
    if (!strcmp(security, "curve-server")) {
        check(zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one), "curve");
        check(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, SERVER_SECRET, 40), "curve");
    } else if (!strcmp(security, "curve-client")) {
        check(zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, SERVER_PUBLIC, 40), "curve");
        check(zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, CLIENT_PUBLIC, 40), "curve");
        check(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, CLIENT_SECRET, 40), "curve");
    }
    return socket;
}

static void listen_at(void *socket) {
    char bound[256];
    size_t length = sizeof bound;
    check(zmq_bind(socket, endpoint), endpoint);
    check(zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, bound, &length), "endpoint");
    say("{\"bound\":\"%s\"}\n", bound);
}

static void *open_socket(int type) {
    void *socket = idle_socket(type);
    if (binds) listen_at(socket);
    else check(zmq_connect(socket, endpoint), endpoint);
    return socket;
}

static void send_filled(void *socket, const void *head, size_t head_size, int flags) {
    zmq_msg_t message;
    check(zmq_msg_init_size(&message, size > head_size ? size : head_size), "message");
    memset(zmq_msg_data(&message), 'x', zmq_msg_size(&message));
    memcpy(zmq_msg_data(&message), head, head_size);
    check(zmq_msg_send(&message, socket, flags) < 0, "send");
}

static size_t receive(void *socket, zmq_msg_t *message) {
    check(zmq_msg_recv(message, socket, 0) < 0, "recv");
    return zmq_msg_size(message);
}

static uint64_t number_in(zmq_msg_t *message, size_t offset) {
    uint64_t number = 0;
    if (zmq_msg_size(message) >= offset + sizeof number)
        memcpy(&number, (char *)zmq_msg_data(message) + offset, sizeof number);
    return number;
}

// ---- The measured time, kept by the end that receives ----

enum place { BEFORE, BEGIN, INSIDE, END };

static struct {
    uint64_t warm, first, last, seen, messages, bytes, glance;
} window;

// The warm-up begins now. `glance`: messages after which the clock is looked at.
static void open_window(uint64_t glance) {
    memset(&window, 0, sizeof window);
    window.glance = glance;
    window.warm = now_ns() + (uint64_t)(warmup * 1e9);
}

static int enough(double seconds, uint64_t messages) {
    return seconds >= measure && (messages >= least || seconds >= longest);
}

static enum place take(size_t bytes) {
    window.seen++;
    if (window.seen % window.glance == 0 || bytes > 16384) {
        window.last = now_ns();
        if (!window.first) {
            if (window.last >= window.warm) {
                window.first = window.last;
                say("{\"begin\":true}\n");
                return BEGIN;
            }
        } else if (enough((window.last - window.first) * 1e-9, window.messages)) {
            return END;
        }
    }
    if (!window.first) return BEFORE;
    window.messages++;
    window.bytes += bytes;
    return INSIDE;
}

// Prints the result up to its last brace.
static void say_result(void) {
    say("{\"messages\":%llu,\"bytes\":%llu,\"seconds\":%.9f", (unsigned long long)window.messages,
        (unsigned long long)window.bytes, (window.last - window.first) * 1e-9);
}

// ---- Times, in steps of 1/256 of a power of two ----

static uint32_t steps[64][512];

static void record(uint64_t ns) {
    int shift = ns < 512 ? 0 : 55 - __builtin_clzll(ns);
    steps[shift][ns >> shift]++;
}

static void say_histogram(void) {
    const char *separator = "";
    say(",\"histogram\":[");
    for (int shift = 0; shift < 64; shift++)
        for (uint64_t step = 0; step < 512; step++)
            if (steps[shift][step]) {
                say("%s[%llu,%u]", separator, (unsigned long long)(step << shift), steps[shift][step]);
                separator = ",";
            }
    say("]");
}

// ---- Roles: messages one way ----

static void flood(void *socket) {
    for (;;) send_filled(socket, "", 0, 0);
}

static void count_messages(void *socket) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    receive(socket, &message);
    open_window(64);
    while (take(receive(socket, &message)) != END) {}
    say_result();
    say("}\n");
    stay();
}

// ---- Roles: round trips ----

static void echo(void *socket) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (;;) {
        receive(socket, &message);
        int more = zmq_msg_more(&message);
        check(zmq_msg_send(&message, socket, more ? ZMQ_SNDMORE : 0) < 0, "send");
    }
}

static void trip(void *socket, zmq_msg_t *message) {
    send_filled(socket, "", 0, 0);
    receive(socket, message);
}

static void ping(void *socket) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    trip(socket, &message);
    for (uint64_t warm = now_ns() + (uint64_t)(warmup * 1e9); now_ns() < warm;) trip(socket, &message);
    uint64_t messages = 0;
    say("{\"begin\":true}\n");
    uint64_t begin = now_ns(), sent;
    while (sent = now_ns(), !enough((sent - begin) * 1e-9, messages)) {
        trip(socket, &message);
        record(now_ns() - sent);
        messages++;
    }
    say("{\"messages\":%llu,\"seconds\":%.9f", (unsigned long long)messages, (sent - begin) * 1e-9);
    say_histogram();
    say("}\n");
    stay();
}

static int far_echoes;

static void *far_end(void *unused) {
    (void)unused;
    void *socket = idle_socket(ZMQ_PAIR);
    check(zmq_connect(socket, "inproc://bench"), "inproc");
    if (far_echoes) echo(socket);
    flood(socket);
    return NULL;
}

// Both ends in this process.
static void pair(int echoes) {
    void *socket = idle_socket(ZMQ_PAIR);
    check(zmq_bind(socket, "inproc://bench"), "inproc");
    far_echoes = echoes;
    pthread_t thread;
    check(pthread_create(&thread, NULL, far_end, NULL), "thread");
    if (echoes) ping(socket);
    count_messages(socket);
}

// ---- Many sockets in one thread: each has a turn of at most so many messages ----

enum { BURST = 64 };

static void wait_for_any(void **sockets, zmq_pollitem_t *items, short events) {
    for (size_t i = 0; i < count; i++) items[i] = (zmq_pollitem_t){sockets[i], 0, events, 0};
    check(zmq_poll(items, (int)count, -1) < 0, "poll");
}

static void count_at_subscribers(void) {
    void **sockets = calloc(count, sizeof *sockets);
    zmq_pollitem_t *items = calloc(count, sizeof *items);
    char *seen = calloc(count, 1);
    size_t missing = count;
    for (size_t i = 0; i < count + (stalled ? 1 : 0); i++) {
        void *socket = idle_socket(ZMQ_SUB);
        check(zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0), "subscribe");
        check(zmq_connect(socket, endpoint), endpoint);
        // The last one is not read.
        if (i < count) sockets[i] = socket;
    }
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (;;) {
        wait_for_any(sockets, items, ZMQ_POLLIN);
        for (size_t i = 0; i < count; i++) {
            if (!items[i].revents) continue;
            for (int turn = 0; turn < BURST; turn++) {
                if (zmq_msg_recv(&message, sockets[i], ZMQ_DONTWAIT) < 0) {
                    check(errno != EAGAIN, "recv");
                    break;
                }
                if (!seen[i]) {
                    seen[i] = 1;
                    if (!--missing) open_window(64);
                } else if (!missing && take(zmq_msg_size(&message)) == END) {
                    say_result();
                    say("}\n");
                    stay();
                }
            }
        }
    }
}

static void flood_from_dealers(void) {
    void **sockets = calloc(count, sizeof *sockets);
    zmq_pollitem_t *items = calloc(count, sizeof *items);
    for (size_t i = 0; i < count; i++) sockets[i] = open_socket(ZMQ_DEALER);
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (;;) {
        int sent = 0;
        for (size_t i = 0; i < count; i++) {
            for (int turn = 0; turn < BURST; turn++, sent = 1) {
                if (!zmq_msg_size(&message)) {
                    check(zmq_msg_init_size(&message, size), "message");
                    memset(zmq_msg_data(&message), 'x', size);
                }
                if (zmq_msg_send(&message, sockets[i], ZMQ_DONTWAIT) < 0) {
                    check(errno != EAGAIN, "send");
                    break;
                }
            }
        }
        if (!sent) wait_for_any(sockets, items, ZMQ_POLLOUT);
    }
}

// ---- Roles: routing ----

static void count_each(void) {
    void *socket = open_socket(ZMQ_ROUTER);
    // A name that libzmq makes up is a zero byte and a number that only grows.
    struct { unsigned char name[5]; uint64_t messages; } *peers = calloc(count, sizeof *peers);
    size_t slots = 1, known = 0;
    while (slots < 4 * count) slots *= 2;
    size_t *table = calloc(slots, sizeof *table);
    zmq_msg_t name, message;
    zmq_msg_init(&name);
    zmq_msg_init(&message);
    for (;;) {
        uint32_t number = 0;
        if (receive(socket, &name) == 5) memcpy(&number, (char *)zmq_msg_data(&name) + 1, 4);
        size_t bytes = receive(socket, &message), slot = (number * 2654435761u) & (slots - 1);
        while (table[slot] && memcmp(peers[table[slot] - 1].name, zmq_msg_data(&name), 5)) slot = (slot + 1) & (slots - 1);
        if (!table[slot]) {
            memcpy(peers[known].name, zmq_msg_data(&name), 5);
            table[slot] = ++known;
            if (known == count) open_window(64);
        } else if (known == count) {
            enum place place = take(bytes);
            if (place == INSIDE) peers[table[slot] - 1].messages++;
            if (place == END) break;
        }
    }
    uint64_t fewest = UINT64_MAX, most = 0;
    for (size_t i = 0; i < count; i++) {
        if (peers[i].messages < fewest) fewest = peers[i].messages;
        if (peers[i].messages > most) most = peers[i].messages;
    }
    say_result();
    say(",\"least_each\":%llu,\"most_each\":%llu}\n", (unsigned long long)fewest, (unsigned long long)most);
    stay();
}

// ---- Roles: topics. One of SHARE is asked for ----

enum { TOPIC = 10, SHARE = 10, STEP = 7368787 };

static void name_topic(char *to, size_t number) {
    char text[32];
    snprintf(text, sizeof text, "t/%08zu", number);
    memcpy(to, text, TOPIC);
}

static void publish_topics(void) {
    void *socket = open_socket(ZMQ_PUB);
    size_t topics = count * SHARE;
    char *names = malloc(topics * TOPIC);
    for (size_t i = 0; i < topics; i++) name_topic(names + i * TOPIC, i);
    for (uint64_t number = 0;; number++) {
        char head[TOPIC + 8];
        memcpy(head, names + number * STEP % topics * TOPIC, TOPIC);
        memcpy(head + TOPIC, &number, 8);
        send_filled(socket, head, sizeof head, 0);
    }
}

static void count_topics(void) {
    void *socket = idle_socket(ZMQ_SUB);
    // libzmq drops subscriptions that exceed the high-water mark: without this all but the first 1000 would be lost.
    int unlimited = 0;
    check(zmq_setsockopt(socket, ZMQ_SNDHWM, &unlimited, sizeof unlimited), "high-water mark");
    char name[TOPIC];
    for (size_t i = 0; i < count; i++) {
        name_topic(name, i * SHARE);
        check(zmq_setsockopt(socket, ZMQ_SUBSCRIBE, name, TOPIC), "subscribe");
    }
    check(zmq_connect(socket, endpoint), endpoint);
    zmq_msg_t message;
    zmq_msg_init(&message);
    // `name` was asked for last: when it comes, all the others have arrived, too.
    do receive(socket, &message);
    while (zmq_msg_size(&message) < TOPIC || memcmp(zmq_msg_data(&message), name, TOPIC));
    open_window(64);
    uint64_t first = 0;
    for (;;) {
        enum place place = take(receive(socket, &message));
        if (place == BEGIN) first = number_in(&message, TOPIC);
        if (place == END) break;
    }
    say_result();
    say(",\"published\":%llu}\n", (unsigned long long)(number_in(&message, TOPIC) - first));
    stay();
}

// ---- Roles: open loop ----

static void send_paced(void) {
    void *socket = open_socket(ZMQ_PUSH);
    uint64_t begin = now_ns();
    for (uint64_t number = 0;; number++) {
        uint64_t due = begin + (uint64_t)(number * 1e9 / rate);
        // Sleeping would be late by more than what is measured.
        while (now_ns() < due) sched_yield();
        send_filled(socket, &due, sizeof due, 0);
    }
}

static void take_ages(void) {
    void *socket = open_socket(ZMQ_PULL);
    zmq_msg_t message;
    zmq_msg_init(&message);
    receive(socket, &message);
    open_window(64);
    for (;;) {
        enum place place = take(receive(socket, &message));
        if (place == INSIDE) record(now_ns() - number_in(&message, 0));
        if (place == END) break;
    }
    say_result();
    say_histogram();
    say("}\n");
    stay();
}

// ---- Roles: a crowd of connections ----

static void connect_crowd(void) {
    void *socket = idle_socket(ZMQ_PUSH);
    await_order();
    for (size_t i = 0; i < count; i++) check(zmq_connect(socket, endpoint), endpoint);
    await_order();
    uint64_t sent = 0;
    // Spinning would take the time of the end that is measured.
    for (uint64_t begin = now_ns();; usleep(1000))
        for (; sent < (now_ns() - begin) * 1e-9 * rate; sent++) send_filled(socket, "", 0, 0);
}

// Tells when so many handshakes are complete.
static void *await_all(void *unused) {
    (void)unused;
    void *monitor = zmq_socket(context, ZMQ_PAIR);
    check(zmq_connect(monitor, "inproc://monitor"), "monitor");
    zmq_msg_t message;
    zmq_msg_init(&message);
    // An event is its number and value, and in another part the address.
    for (size_t up = 0; up < count; up++) {
        receive(monitor, &message);
        receive(monitor, &message);
    }
    say("{\"up\":true}\n");
    return NULL;
}

static void meet_crowd(void) {
    void *socket = idle_socket(ZMQ_PULL);
    check(zmq_socket_monitor(socket, "inproc://monitor", ZMQ_EVENT_HANDSHAKE_SUCCEEDED), "monitor");
    pthread_t watcher;
    check(pthread_create(&watcher, NULL, await_all, NULL), "thread");
    listen_at(socket);
    zmq_msg_t message;
    zmq_msg_init(&message);
    receive(socket, &message);
    open_window(1);
    while (take(receive(socket, &message)) != END) {}
    say_result();
    say("}\n");
    stay();
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "version")) {
        int major, minor, patch;
        zmq_version(&major, &minor, &patch);
        say("{\"version\":\"%d.%d.%d\"}\n", major, minor, patch);
        return 0;
    }
    if (argc < 4) {
        fprintf(stderr, "usage: libzmq_peer ROLE bind|connect ENDPOINT [NAME=VALUE]...\n");
        return 2;
    }
    const char *role = argv[1];
    binds = !strcmp(argv[2], "bind");
    endpoint = argv[3];
    for (int i = 4; i < argc; i++) setting(argv[i]);
    signal(SIGPIPE, SIG_IGN);
    pthread_t reader;
    check(pthread_create(&reader, NULL, read_orders, NULL), "thread");
    context = zmq_ctx_new();
    // Of the default limit of 1023 sockets, a thousand and a stalled one leave too few.
    int many = !strcmp(role, "subs") || !strcmp(role, "dealers");
    if (many && count > 900) check(zmq_ctx_set(context, ZMQ_MAX_SOCKETS, (int)count + 100), "sockets");
    if (!strcmp(role, "push")) flood(open_socket(ZMQ_PUSH));
    else if (!strcmp(role, "pull")) count_messages(open_socket(ZMQ_PULL));
    else if (!strcmp(role, "pair-rate")) pair(0);
    else if (!strcmp(role, "req")) ping(open_socket(ZMQ_REQ));
    else if (!strcmp(role, "rep")) echo(open_socket(ZMQ_REP));
    else if (!strcmp(role, "pair-trips")) pair(1);
    else if (!strcmp(role, "pub")) flood(open_socket(ZMQ_PUB));
    else if (!strcmp(role, "subs")) count_at_subscribers();
    else if (!strcmp(role, "topic-pub")) publish_topics();
    else if (!strcmp(role, "topic-sub")) count_topics();
    else if (!strcmp(role, "dealers")) flood_from_dealers();
    else if (!strcmp(role, "router")) count_each();
    else if (!strcmp(role, "paced-push")) send_paced();
    else if (!strcmp(role, "paced-pull")) take_ages();
    else if (!strcmp(role, "crowd-push")) connect_crowd();
    else if (!strcmp(role, "crowd-pull")) meet_crowd();
    else say("{\"cannot\":\"there is no role %s\"}\n", role);
    return 0;
}
