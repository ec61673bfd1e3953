// A few threads that share out numbered pieces of work.

#ifndef CONVOY_MODEL_NATIVE_POOL_H_
#define CONVOY_MODEL_NATIVE_POOL_H_

#include <cstdint>
#include <functional>

namespace convoy {

// Calls `work(piece)` for 0 <= piece < pieces, in any order and on several threads, and waits for
// the end. While another call has the threads, or in a forked child, the caller does all of it.
void Share(int64_t pieces, const std::function<void(int64_t)>& work);

// How many threads, the caller's among them, calls may use from now on; 0 for one a core.
void SetThreads(int threads);

}  // namespace convoy

#endif  // CONVOY_MODEL_NATIVE_POOL_H_
