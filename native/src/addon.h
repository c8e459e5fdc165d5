// What the other files share: reading arguments, throwing errors, owning a descriptor. Nothing here keeps state: an
// addon is loaded once per process but runs in every thread that asks for it, so all state hangs off JavaScript
// objects.
#pragma once

#include <node_api.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace tidegate {

// Closes what it holds unless released: each early return of the functions below leaves no descriptor behind.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);  // never repeated on EINTR: Linux has freed the number by then
  }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

constexpr size_t kPathBytes = 4096;  // PATH_MAX, with the terminating zero

// An argument list of exactly N values, missing ones undefined.
template <size_t N>
struct Arguments {
  napi_value at[N];
  Arguments(napi_env env, napi_callback_info info) {
    size_t count = N;
    napi_get_cb_info(env, info, &count, at, nullptr, nullptr);
  }
};

// Each reads one argument; false means that a TypeError naming it has been thrown and the caller returns nullptr.
bool readInteger(napi_env env, napi_value value, const char* name, int64_t least, int64_t most, int64_t* out);
bool readString(napi_env env, napi_value value, const char* name, char* out, size_t capacity);
bool checkFunction(napi_env env, napi_value value, const char* name);
napi_value throwArgument(napi_env env, const char* name, const char* expected);

// Throws an Error with .code and .syscall. `error` is an errno; returns nullptr so that callers can return it.
napi_value throwSystem(napi_env env, int error, const char* syscall, const char* subject);
// The same for conditions that have no errno.
napi_value throwCoded(napi_env env, const char* code, const char* syscall, const char* reason, const char* subject);

napi_value integer(napi_env env, int64_t value);
void setProperty(napi_env env, napi_value object, const char* name, napi_value value);
void setFunction(napi_env env, napi_value exports, const char* name, napi_callback function);

void registerSegment(napi_env env, napi_value exports);
void registerListener(napi_env env, napi_value exports);
void registerAcceptor(napi_env env, napi_value exports);
void registerHmac(napi_env env, napi_value exports);
void registerHandover(napi_env env, napi_value exports);
void registerServer(napi_env env, napi_value exports);  // uws/
void registerWire(napi_env env, napi_value exports);

}  // namespace tidegate
