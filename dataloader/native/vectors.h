// CONVOY_VECTORS before a function makes GCC compile it for AVX2 too; the right version is chosen
// when the library loads. So one binary runs on every x86-64 machine of a cluster, without
// -march=native.

#ifndef CONVOY_DATALOADER_NATIVE_VECTORS_H_
#define CONVOY_DATALOADER_NATIVE_VECTORS_H_

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)  // the sanitizer is not ready yet when the choice is made
#define CONVOY_VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define CONVOY_VECTORS
#endif

#endif  // CONVOY_DATALOADER_NATIVE_VECTORS_H_
