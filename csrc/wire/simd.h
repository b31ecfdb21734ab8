/* simd: whether the kernels for vectors of x86-64 are built in, the one switch for all of them: -DSMTP_SIMD=0 leaves them
 * out. Where they are in SSE2 is always there, and AVX2 is asked for. Called by base64, lines and scan.
 */
#ifndef SMTP_SIMD_H
#define SMTP_SIMD_H

#ifndef SMTP_SIMD
#if defined(__x86_64__) && defined(__GNUC__)
#define SMTP_SIMD 1
#else
#define SMTP_SIMD 0
#endif
#endif

#if SMTP_SIMD
#include <immintrin.h>
#define SMTP_AVX2 __attribute__((target("avx2")))
#define smtp_simd_avx2() (__builtin_cpu_supports("avx2") != 0)
#else
#define smtp_simd_avx2() 0
#endif

#endif
