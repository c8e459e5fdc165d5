// Looks for uSockets' functions among the libraries that are loaded (usockets.h says why, and what it costs to be
// without).
#include "usockets.h"

#include <dlfcn.h>
#include <link.h>

#include <type_traits>

namespace tidegate {
namespace {

// The library that has uSockets' functions: that of the uWebSockets.js that is loaded.
int lookInto(dl_phdr_info* info, size_t, void* out) {
  const size_t length = strlen(info->dlpi_name);
  if (length < 5 || strcmp(info->dlpi_name + length - 5, ".node") != 0) return 0;
  void* library = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) return 0;
  USockets us;
  const auto find = [library](auto& function, const char* name) {
    function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
  };
  find(us.onOpen, "us_socket_context_on_open");
  find(us.onData, "us_socket_context_on_data");
  find(us.onWritable, "us_socket_context_on_writable");
  find(us.onClose, "us_socket_context_on_close");
  find(us.isClosed, "us_socket_is_closed");
  find(us.isShutDown, "us_socket_is_shut_down");
  find(us.write, "us_socket_write");
  find(us.shutdown, "us_socket_shutdown");
  find(us.close, "us_socket_close");
  find(us.onTimeout, "us_socket_context_on_timeout");
  find(us.timeout, "us_socket_timeout");
  find(us.context, "us_socket_context");
  find(us.loop, "us_socket_context_loop");
  find(us.fd, "us_poll_fd");
  find(us.events, "us_poll_events");
  find(us.watch, "us_poll_change");
  dlclose(library);
  if (!us.complete()) return 0;
  *static_cast<USockets*>(out) = us;
  return 1;
}

}  // namespace

bool isSameLibrary(const void* one, const void* other) {
  Dl_info first, second;
  return dladdr(one, &first) != 0 && dladdr(other, &second) != 0 && first.dli_fbase == second.dli_fbase;
}

bool findUSockets(USockets* us) { return dl_iterate_phdr(lookInto, us) != 0; }

}  // namespace tidegate
