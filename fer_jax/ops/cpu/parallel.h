// Vectors, and parallel loops on XLA's thread pool.

#ifndef FER_JAX_PARALLEL_H_
#define FER_JAX_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>

#include "xla/ffi/api/ffi.h"

namespace fer_jax {

namespace ffi = xla::ffi;

constexpr int kLanes = 16;
// Polls before the calling thread sleeps: some tens of microseconds, as long as
// waking it would take.
constexpr int kSpinIterations = 1000;
// An unaligned vector of floats; compilers split it on machines with shorter
// vectors.
typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4)));

inline Vector Load(const float* p) {
  return *reinterpret_cast<const Vector*>(p);
}
inline void Store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Runs work(0) ... work(count - 1) on the pool's threads and the calling
// thread; throws what one of them has thrown, when all have ended.
//
// The calling thread takes blocks too and waits only for blocks that have
// started, so nested or concurrent calls cannot deadlock.
template <typename Work>
void ParallelFor(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct State {
    std::atomic<int64_t> next{0};
    std::atomic<int64_t> done{0};
    std::mutex mutex;
    std::condition_variable all_done;
    std::exception_ptr error;  // the first; read when all is done
  };
  auto state = std::make_shared<State>();
  // `work` is used only while blocks are left, so within its lifetime.
  const Work* borrowed = &work;
  auto take = [state, count, borrowed] {
    int64_t mine = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < count; ++mine) {
      try {
        (*borrowed)(i);
      } catch (...) {
        std::lock_guard<std::mutex> lock(state->mutex);
        if (!state->error) state->error = std::current_exception();
      }
    }
    if (mine == 0) return;
    if (state->done.fetch_add(mine) + mine < count) return;
    std::lock_guard<std::mutex> lock(state->mutex);
    state->all_done.notify_one();
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  try {
    for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(take)(take));
  } catch (const std::bad_alloc&) {
    // Those that have been scheduled and the calling thread do all the work.
  }
  take();
  for (int i = 0; i < kSpinIterations && state->done != count; ++i) Pause();
  if (state->done != count) {
    std::unique_lock<std::mutex> lock(state->mutex);
    state->all_done.wait(lock, [&] { return state->done == count; });
  }
  if (state->error) std::rethrow_exception(state->error);
}

}  // namespace fer_jax

#endif  // FER_JAX_PARALLEL_H_
