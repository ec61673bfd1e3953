// Runs numbered pieces of work on a few threads.

#ifndef CONVOY_MODEL_NATIVE_POOL_H_
#define CONVOY_MODEL_NATIVE_POOL_H_

#include <cstdint>
#include <functional>

namespace convoy {

// Calls `work(piece)` for 0 <= piece < pieces, in any order and on several threads, and waits for
// the end. While another call uses the threads, or in a forked child, the caller does all of it.
void Share(int64_t pieces, const std::function<void(int64_t)>& work);

// Sets how many threads, including the caller's, calls may use from now on; 0 for one per core.
void SetThreads(int threads);

}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_POOL_H_
