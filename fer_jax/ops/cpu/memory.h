// Memory for the kernels' intermediate results.

#ifndef FER_JAX_MEMORY_H_
#define FER_JAX_MEMORY_H_

#include <cstdint>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

namespace fer_jax {

// Memory that kernels have used and the next ones will. The C library would
// search and split its free memory for each, which takes longer than some
// kernels.
class UnusedMemory {
 public:
  // Returns the only instance, which threads may use until the process ends.
  static UnusedMemory& Get() {
    static UnusedMemory* const unused = new UnusedMemory;
    return *unused;
  }

  // Returns memory of a size that `RoundUp` returned.
  void* Take(int64_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      std::vector<void*>& of_size = blocks_[bytes];
      if (!of_size.empty()) {
        void* const block = of_size.back();
        of_size.pop_back();
        bytes_ -= bytes;
        return block;
      }
    }
    return ::operator new(bytes, kLine);
  }

  void Give(void* block, int64_t bytes) {
    try {
      std::lock_guard<std::mutex> lock(mutex_);
      if (bytes_ + bytes <= kLimit) {
        blocks_[bytes].push_back(block);
        bytes_ += bytes;
        return;
      }
    } catch (const std::bad_alloc&) {
      // Destructors call this, which must not throw: the block is freed.
    }
    ::operator delete(block, kLine);
  }

  // Returns the next of four sizes per power of two, so that few differ.
  static int64_t RoundUp(int64_t bytes) {
    int64_t step = 64;
    while (8 * step < bytes) step *= 2;
    return (bytes + step - 1) / step * step;
  }

 private:
  static constexpr std::align_val_t kLine{64};
  static constexpr int64_t kLimit = 1 << 27;

  std::mutex mutex_;
  std::unordered_map<int64_t, std::vector<void*>> blocks_;
  int64_t bytes_ = 0;
};

// An array that is aligned to cache lines and not initialized.
template <typename T>
class Memory {
 public:
  explicit Memory(int64_t size)
      : bytes_(UnusedMemory::RoundUp(size * sizeof(T))),
        data_(size ? static_cast<T*>(UnusedMemory::Get().Take(bytes_))
                   : nullptr) {}
  Memory(Memory&& other) noexcept : bytes_(other.bytes_), data_(other.data_) {
    other.data_ = nullptr;
  }
  ~Memory() {
    if (data_) UnusedMemory::Get().Give(data_, bytes_);
  }
  T* at(int64_t index) const { return data_ + index; }

 private:
  int64_t bytes_;
  T* data_;
};

}  // namespace fer_jax

#endif  // FER_JAX_MEMORY_H_
