#include "pool.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace convoy {
namespace {

int Cores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// Never destroyed: its threads wait until the process ends.
class Pool {
 public:
  void SetThreads(int threads) {
    const std::lock_guard<std::mutex> hold(calling_);
    wanted_ = threads;
  }

  bool TryShare(int64_t pieces, const std::function<void(int64_t)>& work) {
    const std::unique_lock<std::mutex> hold(calling_, std::try_to_lock);
    if (!hold.owns_lock() || owner_ != getpid()) return false;
    const int helpers = static_cast<int>(std::min<int64_t>(pieces, Wanted())) - 1;
    while (started_ < helpers) {
      std::thread([this] { Serve(); }).detach();
      ++started_;
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      work_ = &work, pieces_ = pieces, next_ = 0;
      room_ = helpers;
    }
    if (helpers > 0) begin_.notify_all();
    Work(work, pieces);
    std::unique_lock<std::mutex> lock(mutex_);
    room_ = 0;  // helpers that start now are not needed
    end_.wait(lock, [this] { return busy_ == 0; });
    return true;
  }

 private:
  int Wanted() {
    if (wanted_ == 0) wanted_ = Cores();
    return wanted_;
  }

  void Work(const std::function<void(int64_t)>& work, int64_t pieces) {
    for (int64_t piece; (piece = next_.fetch_add(1)) < pieces;) work(piece);
  }

  void Serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      begin_.wait(lock, [&] { return room_ > 0; });
      --room_, ++busy_;
      const auto* work = work_;
      const int64_t pieces = pieces_;
      lock.unlock();
      Work(*work, pieces);
      lock.lock();
      if (--busy_ == 0) end_.notify_one();
    }
  }

  std::mutex calling_;  // held during a call
  const pid_t owner_ = getpid();
  int wanted_ = 0, started_ = 0;

  std::mutex mutex_;  // guards everything below
  std::condition_variable begin_, end_;
  const std::function<void(int64_t)>* work_ = nullptr;
  int64_t pieces_ = 0;
  std::atomic<int64_t> next_{0};
  int room_ = 0, busy_ = 0;  // helpers that may still join, and helpers at work
};

Pool& ThePool() {
  static Pool* const pool = new Pool;
  return *pool;
}

}  // namespace

void SetThreads(int threads) { ThePool().SetThreads(std::max(0, threads)); }

void Share(int64_t pieces, const std::function<void(int64_t)>& work) {
  if (pieces > 1 && ThePool().TryShare(pieces, work)) return;
  for (int64_t piece = 0; piece < pieces; ++piece) work(piece);
}

}  // namespace convoy
