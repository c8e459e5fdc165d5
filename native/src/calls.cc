// Calling back into JavaScript, and what becomes of a connection whose callback throws.
#include "calls.h"

#include "server.h"

namespace tidegate {
namespace {

// Ends a connection whose callback threw before it passed the descriptor on. The callback may have thrown after the
// server adopted the socket, which then stays adopted: the server's own set watches it already, or the loop does, and
// libuv answers EEXIST. EBADF: the callback closed it itself.
void closeUnlessAdopted(napi_env env, int fd) {
  uv_loop_t* loop;
  if (isWatchedByServer(fd)) return;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) return;
  auto* probe = new uv_poll_t;
  if (uv_poll_init(loop, probe, fd) != 0) {
    delete probe;
    return;
  }
  uv_close(reinterpret_cast<uv_handle_t*>(probe), [](uv_handle_t* handle) { delete reinterpret_cast<uv_poll_t*>(handle); });
  close(fd);
}

}  // namespace

bool Calls::operator()(
    napi_ref callback, const napi_value* arguments, size_t count, int fd, napi_value* result, napi_ref receiverReference) {
  napi_value function, receiver, resource, error;
  if (!open_) {
    napi_create_object(env_, &resource);
    open_ = napi_open_callback_scope(env_, resource, context_, &scope_) == napi_ok;
  }
  napi_get_reference_value(env_, callback, &function);
  if (receiverReference == nullptr) napi_get_undefined(env_, &receiver);
  else napi_get_reference_value(env_, receiverReference, &receiver);
  if (open_ && napi_call_function(env_, receiver, function, count, arguments, result) == napi_ok) return true;
  bool pending = false;
  napi_is_exception_pending(env_, &pending);
  if (pending) napi_get_and_clear_last_exception(env_, &error);
  if (fd >= 0) closeUnlessAdopted(env_, fd);
  if (pending) tell(error);
  return false;
}

void Calls::tell(napi_value error) {
  napi_value function, receiver, ignored;
  napi_get_undefined(env_, &receiver);
  if (onException_ != nullptr && napi_get_reference_value(env_, onException_, &function) == napi_ok) {
    if (napi_call_function(env_, receiver, function, 1, &error, &ignored) == napi_ok) return;
    napi_get_and_clear_last_exception(env_, &error);
  }
  napi_fatal_exception(env_, error);
}

}  // namespace tidegate
