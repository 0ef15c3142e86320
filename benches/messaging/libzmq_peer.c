// One end of a measurement, over libzmq's C API, with libzmq's defaults.
//
// Speaks the command line and the output of `tidegate mq bench-peer`, so that the runner can put either program at either
// end. A receiver or client binds nothing by itself: `bind` or `connect` says which. What it measured goes to stdout as
// one line of JSON; an end that only serves runs until it is killed.
//
//   cc -O2 -o libzmq_peer libzmq_peer.c -lzmq
//   libzmq_peer ROLE bind|connect ENDPOINT SIZE WARMUP_S MEASURE_S [curve-server|curve-client]
//
// ROLE: push pull pub sub req rep dealer router; `pair` measures both ends in this process.

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

static const char *SERVER_PUBLIC = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
static const char *SERVER_SECRET = "JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6";
static const char *CLIENT_PUBLIC = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID";
static const char *CLIENT_SECRET = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs";

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static void check(int failed, const char *what) {
    if (failed) {
        fprintf(stderr, "libzmq_peer: %s: %s\n", what, zmq_strerror(zmq_errno()));
        exit(1);
    }
}

static int type_of(const char *role) {
    static const struct { const char *name; int type; } roles[] = {
        {"push", ZMQ_PUSH}, {"pull", ZMQ_PULL}, {"pub", ZMQ_PUB}, {"sub", ZMQ_SUB}, {"req", ZMQ_REQ},
        {"rep", ZMQ_REP}, {"dealer", ZMQ_DEALER}, {"router", ZMQ_ROUTER}, {"pair", ZMQ_PAIR},
    };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(role, roles[i].name)) return roles[i].type;
    fprintf(stderr, "libzmq_peer: unknown role %s\n", role);
    exit(2);
}

static void *open_socket(void *context, const char *role, const char *how, const char *endpoint, const char *security) {
    void *socket = zmq_socket(context, type_of(role));
    check(!socket, "socket");
    int zero = 0, one = 1;
    zmq_setsockopt(socket, ZMQ_LINGER, &zero, sizeof zero);
    if (!strcmp(role, "sub")) zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0);
    if (!strcmp(security, "curve-server")) {
        check(zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one), "curve");
        check(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, SERVER_SECRET, 40), "curve");
    } else if (!strcmp(security, "curve-client")) {
        check(zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, SERVER_PUBLIC, 40), "curve");
        check(zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, CLIENT_PUBLIC, 40), "curve");
        check(zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, CLIENT_SECRET, 40), "curve");
    }
    if (!strcmp(how, "bind")) {
        char bound[256];
        size_t length = sizeof bound;
        check(zmq_bind(socket, endpoint), endpoint);
        zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, bound, &length);
        printf("{\"bound\":\"%s\"}\n", bound);
        fflush(stdout);
    } else {
        check(zmq_connect(socket, endpoint), endpoint);
    }
    return socket;
}

static void flood(void *socket, size_t size) {
    for (;;) {
        zmq_msg_t message;
        check(zmq_msg_init_size(&message, size), "message");
        memset(zmq_msg_data(&message), 'x', size);
        check(zmq_msg_send(&message, socket, 0) < 0, "send");
    }
}

// Counts messages for the time given, after a warm-up that begins with the first one.
static void count(void *socket, double warmup, double measure) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    check(zmq_msg_recv(&message, socket, 0) < 0, "recv");
    double begin = now() + warmup, last = 0, cpu_before = 0;
    unsigned long long messages = 0, bytes = 0;
    double first = 0;
    for (unsigned long long i = 0;; i++) {
        check(zmq_msg_recv(&message, socket, 0) < 0, "recv");
        if ((i & 63) == 0 || zmq_msg_size(&message) > 16384) {
            last = now();
            if (!first && last >= begin) {
                first = last;
                messages = bytes = 0;
                cpu_before = cpu();
                continue;
            }
            if (first && last - first >= measure) break;
        }
        messages++;
        bytes += zmq_msg_size(&message);
    }
    printf("{\"messages\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"cpu_seconds\":%.6f}\n", messages, bytes, last - first,
           cpu() - cpu_before);
}

static void echo(void *socket) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (;;) {
        int more;
        size_t length = sizeof more;
        check(zmq_msg_recv(&message, socket, 0) < 0, "recv");
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &length);
        check(zmq_msg_send(&message, socket, more ? ZMQ_SNDMORE : 0) < 0, "send");
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Round trips, one at a time.
static void ping(void *socket, size_t size, double warmup, double measure) {
    size_t capacity = 1 << 22, trips = 0;
    double *times = malloc(capacity * sizeof *times);
    char *buffer = malloc(size + 1);
    memset(buffer, 'x', size);
    double begin = now() + warmup, end = begin + measure, cpu_before = 0;
    int warm = 0;
    for (;;) {
        double sent = now();
        if (!warm && sent >= begin) {
            warm = 1;
            trips = 0;
            cpu_before = cpu();
        }
        if ((warm && sent >= end) || trips == capacity) break;
        check(zmq_send(socket, buffer, size, 0) < 0, "send");
        check(zmq_recv(socket, buffer, size, 0) < 0, "recv");
        times[trips++] = now() - sent;
    }
    qsort(times, trips, sizeof *times, by_value);
    printf("{\"trips\":%zu,\"p50_ns\":%.0f,\"p90_ns\":%.0f,\"p99_ns\":%.0f,\"p999_ns\":%.0f,\"max_ns\":%.0f,"
           "\"cpu_seconds\":%.6f}\n",
           trips, times[trips / 2] * 1e9, times[trips * 9 / 10] * 1e9, times[trips * 99 / 100] * 1e9,
           times[trips * 999 / 1000] * 1e9, times[trips - 1] * 1e9, cpu() - cpu_before);
}

struct end { void *context; size_t size; int echoes; };

static void *far_end(void *argument) {
    struct end *end = argument;
    void *socket = open_socket(end->context, "pair", "connect", "inproc://bench", "");
    if (end->echoes) echo(socket);
    flood(socket, end->size);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 7) {
        fprintf(stderr, "usage: libzmq_peer ROLE bind|connect ENDPOINT SIZE WARMUP_S MEASURE_S [curve-server|curve-client]\n");
        return 2;
    }
    const char *role = argv[1], *how = argv[2], *endpoint = argv[3], *security = argc > 7 ? argv[7] : "";
    size_t size = strtoul(argv[4], NULL, 10);
    double warmup = atof(argv[5]), measure = atof(argv[6]);
    signal(SIGPIPE, SIG_IGN);
    void *context = zmq_ctx_new();
    if (!strcmp(role, "pair")) {
        // `bind` measures the rate in one direction, `connect` round trips.
        struct end end = {context, size, !strcmp(how, "connect")};
        void *socket = zmq_socket(context, ZMQ_PAIR);
        check(zmq_bind(socket, "inproc://bench"), "inproc");
        pthread_t thread;
        pthread_create(&thread, NULL, far_end, &end);
        if (end.echoes) ping(socket, size, warmup, measure); else count(socket, warmup, measure);
        exit(0);
    }
    void *socket = open_socket(context, role, how, endpoint, security);
    if (!strcmp(role, "push") || !strcmp(role, "pub") || !strcmp(role, "dealer")) flood(socket, size);
    else if (!strcmp(role, "pull") || !strcmp(role, "sub") || !strcmp(role, "router")) count(socket, warmup, measure);
    else if (!strcmp(role, "rep")) echo(socket);
    else ping(socket, size, warmup, measure);
    fflush(stdout);
    _exit(0);
}
