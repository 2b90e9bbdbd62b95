// The memory and streams of a device under test, through its own driver: the library under test
// has no part in it.
#pragma once

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "attn/attn.h"

namespace check {

struct DeviceError : std::runtime_error {
  DeviceError(const std::string &what, bool is_lost) : std::runtime_error(what), lost(is_lost) {}
  bool lost;  // nothing works any more in this process
};

// A captured graph, ready to be launched any number of times.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch() = 0;  // on stream 0; does not wait
  virtual size_t nodes() const = 0;
};

class DeviceMemory {
 public:
  // More than one stream: calls from several threads.
  static constexpr int kStreams = 4;

  virtual ~DeviceMemory() = default;
  // Copies all mirrored memory (mirrored.hpp) to the device.
  virtual void upload() = 0;
  // Waits for all streams, then copies it back.
  virtual void download() = 0;
  virtual void wait() = 0;
  // Where the device has what `host` points to; a pointer to anything else stays as it is.
  virtual void *address(const void *host) const = 0;
  // Whether addresses stay from one upload to the next, as a captured graph needs.
  virtual bool stable() const { return true; }
  virtual attn_stream stream(int index) const = 0;
  // Runs `work`, which may only enqueue on stream 0, in capture.
  virtual std::unique_ptr<Graph> capture(const std::function<void()> &work) = 0;
  // Medians of batches between two events, in microseconds.
  virtual double time_us(const std::function<void()> &enqueue) = 0;
  // Around a call of the library: sets the thread's current context to none or to one of another
  // kind in turn, and says afterwards whether the call left it as it was.
  virtual void before_call() {}
  virtual std::string after_call() { return {}; }

  attn_sdpa_args on_device(const attn_sdpa_args &args) const;
  attn_merge_args on_device(const attn_merge_args &args) const;
  // All but `forward`.
  attn_sdpa_backward_args on_device(const attn_sdpa_backward_args &args) const;
};

// `separate`: each block is an allocation by itself, without room around it, and workspaces are
// new and unwritten for each call: for compute-sanitizer.
std::unique_ptr<DeviceMemory> make_cuda_memory(size_t capacity, bool separate);
std::unique_ptr<DeviceMemory> make_hip_memory(size_t capacity);
// A device that is not one: a second region of the host's memory, for trying the tests themselves
// with the CPU backend.
std::unique_ptr<DeviceMemory> make_pretended_memory(size_t capacity);

}  // namespace check
