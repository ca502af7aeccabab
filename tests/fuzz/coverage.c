/* Coverage of modules that Cython compiles, for libFuzzer inside atheris.
 *
 * gcc -fsanitize-coverage=trace-pc,trace-cmp calls a function at every edge and comparison; libFuzzer no longer
 * takes the first. Here every edge gets a counter of its own, in the order in which edges are met, and compiled.py
 * tells libFuzzer where the counters are. Comparisons are passed on to libFuzzer by a jump, so that it sees who called.
 *
 * Preloaded into the process that fuzzes. One thread runs instrumented code at a time (the GIL, or a fuzzer's only
 * thread); a lost count would cost nothing.
 */
#include <stdint.h>

#define EDGES (1u << 16)
#define SLOTS (EDGES * 4)

uint8_t ringtail_counters[EDGES];
uintptr_t ringtail_edges[EDGES * 2]; /* libFuzzer's table of (address, flags) */
static uintptr_t slot_edge[SLOTS];
static uint32_t slot_number[SLOTS];
static uint32_t edges;

void __sanitizer_cov_trace_pc(void) {
    uintptr_t edge = (uintptr_t)__builtin_return_address(0);
    uint32_t slot = (uint32_t)(edge * 0x9E3779B97F4A7C15ull >> 40) % SLOTS;
    while (slot_edge[slot] != edge) {
        if (!slot_edge[slot]) {
            if (edges == EDGES) return;
            slot_edge[slot] = edge;
            slot_number[slot] = edges++;
            break;
        }
        slot = (slot + 1) % SLOTS;
    }
    uint8_t *counter = &ringtail_counters[slot_number[slot]];
    if (*counter < 255) ++*counter;
}

uint32_t ringtail_edges_met(void) { return edges; }

#define PASS_ON(name, type)                                                     \
    void (*ringtail_##name)(type, type);                                        \
    void __sanitizer_cov_trace_##name(type one, type other) {                   \
        if (ringtail_##name) ringtail_##name(one, other);                       \
    }

PASS_ON(cmp1, uint8_t)
PASS_ON(cmp2, uint16_t)
PASS_ON(cmp4, uint32_t)
PASS_ON(cmp8, uint64_t)
PASS_ON(const_cmp1, uint8_t)
PASS_ON(const_cmp2, uint16_t)
PASS_ON(const_cmp4, uint32_t)
PASS_ON(const_cmp8, uint64_t)

void (*ringtail_switch)(uint64_t, void *);
void __sanitizer_cov_trace_switch(uint64_t value, void *cases) {
    if (ringtail_switch) ringtail_switch(value, cases);
}
void __sanitizer_cov_trace_cmpf(float one, float other) { (void)one; (void)other; }
void __sanitizer_cov_trace_cmpd(double one, double other) { (void)one; (void)other; }
