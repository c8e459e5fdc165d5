// The way from an event of the loop into JavaScript, for acceptor.cc and what it hands connections to.
#pragma once

#include "addon.h"

#include <uv.h>

namespace tidegate {

// For one wake, opened with the first call: ticks and microtasks run once, when it ends.
class Calls {
 public:
  // `onException` gets what a callback throws. nullptr: it becomes an uncaughtException.
  Calls(napi_env env, napi_async_context context, napi_ref onException = nullptr)
      : env_(env), context_(context), onException_(onException) {}
  ~Calls() {
    if (open_) napi_close_callback_scope(env_, scope_);
  }
  Calls(const Calls&) = delete;

  // False when the callback did not return normally. The exception, if there is one, has been told of, and `fd`, a
  // connection that the callback should have taken over, is closed unless it has been.
  bool operator()(
      napi_ref callback, const napi_value* arguments, size_t count, int fd, napi_value* result = nullptr, napi_ref receiver = nullptr);

 private:
  void tell(napi_value error);

  napi_env env_;
  napi_async_context context_;
  napi_ref onException_;
  napi_callback_scope scope_ = nullptr;
  bool open_ = false;
};

}  // namespace tidegate
