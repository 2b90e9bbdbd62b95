// What a call changes for its thread, and puts back at its end.
#pragma once

#include "backend/cuda/driver.hpp"

namespace attn::cuda {

// Makes a context current; the caller's is current again afterwards.
class ContextScope {
 public:
  ContextScope(const Driver &driver, CUcontext context) : driver_(driver) {
    CUcontext current = nullptr;
    code_ = driver.cuCtxGetCurrent(&current);
    if (code_ != CUDA_SUCCESS || current == context) return;
    code_ = driver.cuCtxPushCurrent(context);
    pushed_ = code_ == CUDA_SUCCESS;
  }
  ~ContextScope() {
    CUcontext popped;
    if (pushed_) driver_.cuCtxPopCurrent(&popped);
  }
  ContextScope(const ContextScope &) = delete;
  ContextScope &operator=(const ContextScope &) = delete;

  CUresult code() const { return code_; }

 private:
  const Driver &driver_;
  CUresult code_;
  bool pushed_ = false;
};

// Lets the thread load and unload modules and wait for events while it, or another thread, captures
// a stream: other modes of capture forbid that, and the capture would break.
class CaptureScope {
 public:
  explicit CaptureScope(const Driver &driver) : driver_(driver) {
    changed_ = driver_.cuThreadExchangeStreamCaptureMode(&mode_) == CUDA_SUCCESS;
  }
  ~CaptureScope() {
    if (changed_) driver_.cuThreadExchangeStreamCaptureMode(&mode_);
  }
  CaptureScope(const CaptureScope &) = delete;
  CaptureScope &operator=(const CaptureScope &) = delete;

 private:
  const Driver &driver_;
  int mode_ = CU_STREAM_CAPTURE_MODE_RELAXED;
  bool changed_;
};

}  // namespace attn::cuda
