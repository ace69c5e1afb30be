# Classes of bytes in HTTP (RFC 9110 section 5.6, RFC 3986 appendix A) and scanners for the first byte outside one.
# The table decides; vector code only skips bytes that are certainly inside: 16 at a time with SSE2, else 8 in a word.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    /* MOSEC_CY_PORTABLE builds the word version on x86-64 too, to test it there. */
    #if defined(__SSE2__) && !defined(MOSEC_CY_PORTABLE)
    #include <emmintrin.h>
    #define SCAN_SSE2 1
    #endif

    enum {
        SCAN_TOKEN = 1,    /* tchar */
        SCAN_VALUE = 2,    /* field-content: HTAB, SP, VCHAR, obs-text */
        SCAN_TARGET = 4,   /* VCHAR but '#' (no fragments), and but '?' and '%', which the caller looks at */
        SCAN_HOST = 8,     /* unreserved, sub-delims, and '%', whose digits the caller looks at */
        SCAN_HEX = 16
    };
    #define SCAN_V SCAN_VALUE
    #define SCAN_VT (SCAN_VALUE | SCAN_TARGET)
    #define SCAN_VTH (SCAN_VT | SCAN_HOST)
    #define SCAN_VTK (SCAN_VT | SCAN_TOKEN)
    #define SCAN_ALL (SCAN_VT | SCAN_HOST | SCAN_TOKEN)
    static const uint8_t scan_class[256] __attribute__((unused)) = {
        ['\\t'] = SCAN_V, [' '] = SCAN_V, ['!'] = SCAN_ALL, ['"'] = SCAN_VT, ['#'] = SCAN_V | SCAN_TOKEN,
        ['$'] = SCAN_ALL, ['%'] = SCAN_V | SCAN_HOST | SCAN_TOKEN, ['&'] = SCAN_ALL, ['\\''] = SCAN_ALL,
        ['('] = SCAN_VTH, [')'] = SCAN_VTH, ['*'] = SCAN_ALL, ['+'] = SCAN_ALL, [','] = SCAN_VTH,
        ['-'] = SCAN_ALL, ['.'] = SCAN_ALL, ['/'] = SCAN_VT, ['0' ... '9'] = SCAN_ALL | SCAN_HEX,
        [':'] = SCAN_VT, [';'] = SCAN_VTH, ['<'] = SCAN_VT, ['='] = SCAN_VTH, ['>'] = SCAN_VT, ['?'] = SCAN_V,
        ['@'] = SCAN_VT,
        ['A' ... 'F'] = SCAN_ALL | SCAN_HEX, ['G' ... 'Z'] = SCAN_ALL, ['['] = SCAN_VT, ['\\\\'] = SCAN_VT,
        [']'] = SCAN_VT, ['^'] = SCAN_VTK, ['_'] = SCAN_ALL, ['`'] = SCAN_VTK,
        ['a' ... 'f'] = SCAN_ALL | SCAN_HEX, ['g' ... 'z'] = SCAN_ALL, ['{'] = SCAN_VT, ['|'] = SCAN_VTK,
        ['}'] = SCAN_VT, ['~'] = SCAN_ALL, [0x80 ... 0xff] = SCAN_V,
    };

    #ifdef SCAN_SSE2
    enum { SCAN_BLOCK = 16, SCAN_LANE = 1 };    /* bytes of a block; bits of the mask for each */
    typedef __m128i scan_block;
    typedef uint32_t scan_mask;
    static inline scan_block scan_load(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
    static inline scan_block scan_equal(scan_block x, char c) { return _mm_cmpeq_epi8(x, _mm_set1_epi8(c)); }
    static inline scan_block scan_either(scan_block a, scan_block b) { return _mm_or_si128(a, b); }
    static inline scan_mask scan_bits(scan_block x) { return (scan_mask)_mm_movemask_epi8(x); }
    static inline scan_mask scan_stops_value(scan_block x) {
        scan_block control = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
        return scan_bits(scan_either(control, scan_equal(x, 0x7f)));
    }
    static inline scan_mask scan_stops_target(scan_block x) {
        scan_block outside = _mm_cmplt_epi8(x, _mm_set1_epi8(0x21));    /* signed: 0x80 and up are below too */
        scan_block special = scan_either(scan_either(scan_equal(x, '#'), scan_equal(x, '%')), scan_equal(x, '?'));
        return scan_bits(scan_either(scan_either(outside, special), scan_equal(x, 0x7f)));
    }
    static inline scan_mask scan_stops_token(scan_block x) {
        scan_block letter = _mm_sub_epi8(_mm_or_si128(x, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
        letter = _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter);
        return scan_bits(scan_either(letter, scan_equal(x, '-'))) ^ 0xffff;
    }
    #else
    enum { SCAN_BLOCK = 8, SCAN_LANE = 8 };
    typedef uint64_t scan_block;
    typedef uint64_t scan_mask;
    #define SCAN_EACH(byte) (0x0101010101010101u * (uint64_t)(byte))
    static inline scan_block scan_load(const uint8_t *p) {
        uint64_t x;
        memcpy(&x, p, sizeof x);
    #if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        x = __builtin_bswap64(x);
    #endif
        return x;
    }
    /* The top bit of each byte that is below `limit` (<= 0x80), or equal to `c`: no carry leaves a byte. */
    static inline scan_mask scan_below(scan_block x, int limit) {
        return ~(((x & SCAN_EACH(0x7f)) + SCAN_EACH(0x80 - limit)) | x) & SCAN_EACH(0x80);
    }
    static inline scan_mask scan_equal(scan_block x, int c) { return scan_below(x ^ SCAN_EACH(c), 1); }
    static inline scan_mask scan_stops_value(scan_block x) { return scan_below(x, 0x20) | scan_equal(x, 0x7f); }
    static inline scan_mask scan_stops_target(scan_block x) {
        return scan_below(x, 0x21) | (x & SCAN_EACH(0x80)) | scan_equal(x, 0x7f)
            | scan_equal(x, '#') | scan_equal(x, '%') | scan_equal(x, '?');
    }
    static inline scan_mask scan_stops_token(scan_block x) {
        uint64_t lower = x | SCAN_EACH(0x20);
        scan_mask letter = scan_below(lower, 'z' + 1) & ~scan_below(lower, 'a');
        return (letter | scan_equal(x, '-')) ^ SCAN_EACH(0x80);
    }
    #endif

    /* The first byte of [p, end) outside class `wanted`, or `end`. `stops` may name bytes that are inside, never pass
       one that is outside. The last bytes are looked at in a block that ends at `end`, if there is room from `base`,
       the start of the buffer (base <= p). */
    static inline __attribute__((always_inline)) const uint8_t *scan_run(
            const uint8_t *base, const uint8_t *p, const uint8_t *end, scan_mask (*stops)(scan_block), int wanted) {
        const uint8_t *last, *stop;
        scan_mask mask;
        if (end - base < SCAN_BLOCK) {
            while (p != end && scan_class[*p] & wanted)
                p++;
            return p;
        }
        for (last = end - SCAN_BLOCK; p <= last; p += SCAN_BLOCK) {
            for (mask = stops(scan_load(p)); mask; mask &= mask - 1) {
                stop = p + __builtin_ctzll(mask) / SCAN_LANE;
                if (!(scan_class[*stop] & wanted))
                    return stop;
            }
        }
        if (p == end)
            return end;
        mask = stops(scan_load(last)) & (~(scan_mask)0 << (SCAN_LANE * (p - last)));
        for (; mask; mask &= mask - 1) {
            stop = last + __builtin_ctzll(mask) / SCAN_LANE;
            if (!(scan_class[*stop] & wanted))
                return stop;
        }
        return end;
    }
    static inline const uint8_t *scan_value(const uint8_t *base, const uint8_t *p, const uint8_t *end) {
        return scan_run(base, p, end, scan_stops_value, SCAN_VALUE);
    }
    static inline const uint8_t *scan_target(const uint8_t *base, const uint8_t *p, const uint8_t *end) {
        return scan_run(base, p, end, scan_stops_target, SCAN_TARGET);
    }
    static inline const uint8_t *scan_token(const uint8_t *base, const uint8_t *p, const uint8_t *end) {
        return scan_run(base, p, end, scan_stops_token, SCAN_TOKEN);
    }

    /* 0-15, or -1. */
    static inline int scan_hex(uint8_t c) {
        return scan_class[c] & SCAN_HEX ? (c & 15) + 9 * (c >> 6) : -1;
    }
    /* Equality with `lower` (lower-case letters, digits, '-'; n >= 4, a constant), upper case folded. Exact where p[]
       has no control characters: those alone fold onto digits and '-'. The last word overlaps the one before. */
    static inline __attribute__((always_inline)) int scan_same(const uint8_t *p, const char *lower, size_t n) {
        uint64_t differ = 0;
        if (n < 8) {
            uint32_t a, b, c, d;
            memcpy(&a, p, 4), memcpy(&b, lower, 4), memcpy(&c, p + n - 4, 4), memcpy(&d, lower + n - 4, 4);
            return (((a | 0x20202020u) ^ b) | ((c | 0x20202020u) ^ d)) == 0;
        }
        for (size_t i = 0; i < n; i += 8) {
            uint64_t a, b;
            size_t at = i + 8 <= n ? i : n - 8;
            memcpy(&a, p + at, 8), memcpy(&b, lower + at, 8);
            differ |= (a | 0x2020202020202020u) ^ b;
        }
        return differ == 0;
    }
    """
    enum:
        SCAN_TOKEN
        SCAN_VALUE
        SCAN_HOST
        SCAN_HEX
    const uint8_t scan_class[256]
    const uint8_t *scan_value(const uint8_t *base, const uint8_t *p, const uint8_t *end) noexcept nogil
    const uint8_t *scan_target(const uint8_t *base, const uint8_t *p, const uint8_t *end) noexcept nogil
    const uint8_t *scan_token(const uint8_t *base, const uint8_t *p, const uint8_t *end) noexcept nogil
    int scan_hex(uint8_t c) noexcept nogil
    bint scan_same(const uint8_t *p, const char *lower, size_t n) noexcept nogil
