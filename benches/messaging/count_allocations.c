// Counts the heap allocations of a process, of whatever language, for `tidegate mq bench`: preloaded (LD_PRELOAD), it keeps
// the number as 8 bytes in the file named by TIDEGATE_BENCH_ALLOCATIONS.
//
//   cc -O2 -shared -fPIC -o count_allocations.so count_allocations.c

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// glibc's own, under the names by which it calls them.
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static atomic_ulong unseen;
static atomic_ulong *number = &unseen;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TIDEGATE_BENCH_ALLOCATIONS");
    int file = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0 || ftruncate(file, sizeof *number)) return;
    void *page = mmap(NULL, sizeof *number, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) number = page;
    close(file);
}

static void count(void) { atomic_fetch_add_explicit(number, 1, memory_order_relaxed); }

void *malloc(size_t size) {
    count();
    return __libc_malloc(size);
}

void *calloc(size_t items, size_t size) {
    count();
    return __libc_calloc(items, size);
}

void *realloc(void *old, size_t size) {
    count();
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    count();
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **to, size_t alignment, size_t size) {
    void *memory = memalign(alignment, size);
    if (!memory) return ENOMEM;
    *to = memory;
    return 0;
}
