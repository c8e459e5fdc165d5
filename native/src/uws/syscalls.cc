// What uWebSockets.js asks of libuv and the kernel for each connection, with fewer system calls and packets. It calls functions of other libraries
// through its table of imports, where ours take their place; calls for other handles and descriptors are passed through unchanged.
//
// Works around: the uSockets of uWebSockets.js (20.51.4 and 20.69.0) spends six epoll_ctl, an ioctl and a setsockopt on each connection.
// Without it, each connection costs those calls again, and one packet more at its end.
//
//   uv_poll_…, uv_close  Through libuv a connection costs six epoll_ctl and an ioctl in its life: uv_poll_init tries the descriptor out (in and out
//                        again), uv_poll_start and uv_poll_stop take it out first, uv_close once more. Here it is one epoll_ctl, for a set of our own that
//                        lies in the loop's; closing the descriptor takes it out. A handle's memory is uSockets' own, and its type says whose it is.
//   send                 The last write of a connection waits for its FIN (MSG_MORE), which follows at once: one packet for both, and one ACK.
//   setsockopt           TCP_NODELAY is inherited from the listening socket.
//
//   loop's epoll ─► set ─► onReadable ─► epoll_wait ─► poll_cb of each, as uv__poll_io (libuv's src/unix/poll.c) would call it
#include "syscalls.h"

#include "../addon.h"
#include "../server.h"

#include <dlfcn.h>
#include <link.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <uv.h>

#include <cerrno>
#include <cstring>

namespace tidegate {
namespace {

constexpr int kEventsPerWake = 512;
// libuv gives it to no handle.
constexpr uv_handle_type kOurs = UV_UNKNOWN_HANDLE;

struct Set {
  Descriptor epoll;
  uv_poll_t poll;  // of the set, in the loop
  epoll_event events[kEventsPerWake];
  int at = 0, count = 0;  // of those that are being gone through
  uint8_t* isLastWrite = nullptr;  // JavaScript's: not 0 while it writes the end of an answer whose connection ends with it
};

// uSockets' calls get no pointer of ours. An environment has one set, a thread one environment.
thread_local Set* set = nullptr;

bool isOurs(const uv_handle_t* handle) { return handle->type == kOurs; }

uint32_t epollEvents(int events) {
  const uint32_t in = EPOLLIN, out = EPOLLOUT;
  return (events & UV_READABLE ? in : 0) | (events & UV_WRITABLE ? out : 0);
}

void takeOut(uv_poll_t* poll) {
  poll->io_watcher.events = 0;
  // What has come for it in this wake is nobody's: it may be freed.
  for (int i = set->at; i < set->count; i++) {
    if (set->events[i].data.ptr == poll) set->events[i].data.ptr = nullptr;
  }
}

int pollInit(uv_loop_t* loop, uv_poll_t* poll, uv_os_sock_t fd) {
  if (set == nullptr) return uv_poll_init_socket(loop, poll, fd);
  poll->loop = loop;
  poll->type = kOurs;
  poll->io_watcher.fd = fd;
  poll->io_watcher.events = 0;  // what it is watched for; 0: it is not in the set
  return 0;
}

int pollStart(uv_poll_t* poll, int events, uv_poll_cb callback) {
  if (!isOurs(reinterpret_cast<uv_handle_t*>(poll))) return uv_poll_start(poll, events, callback);
  poll->poll_cb = callback;
  const uint32_t before = poll->io_watcher.events;
  epoll_event event = {};
  event.events = epollEvents(events);
  event.data.ptr = poll;
  // One that is watched for nothing would still be told of its end, turn after turn.
  const int change = event.events == 0 ? EPOLL_CTL_DEL : before == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  if (event.events == before) return 0;
  if (event.events == 0) takeOut(poll);
  poll->io_watcher.events = event.events;
  return epoll_ctl(set->epoll.get(), change, poll->io_watcher.fd, &event) == 0 ? 0 : UV_EIO;
}

// The descriptor is closed next, and nobody has a copy: it leaves the set by itself.
int pollStop(uv_poll_t* poll) {
  if (!isOurs(reinterpret_cast<uv_handle_t*>(poll))) return uv_poll_stop(poll);
  takeOut(poll);
  return 0;
}

// Without a callback: uSockets' own only frees what us_poll_free finds closing, and by itself us_poll_free does that.
void closeHandle(uv_handle_t* handle, uv_close_cb callback) {
  if (!isOurs(handle)) uv_close(handle, callback);
}

int isClosing(const uv_handle_t* handle) { return isOurs(handle) ? 0 : uv_is_closing(handle); }

ssize_t sendOnce(int fd, const void* data, size_t bytes, int flags) {
  return send(fd, data, bytes, set != nullptr && *set->isLastWrite != 0 ? flags | MSG_MORE : flags);
}

int setOption(int fd, int level, int name, const void* value, socklen_t bytes) {
  return set != nullptr && level == IPPROTO_TCP && name == TCP_NODELAY ? 0 : setsockopt(fd, level, name, value, bytes);
}

void onReadable(uv_poll_t*, int, int) {
  set->count = epoll_wait(set->epoll.get(), set->events, kEventsPerWake, 0);
  for (set->at = 0; set->at < set->count;) {
    const epoll_event& event = set->events[set->at++];
    auto* poll = static_cast<uv_poll_t*>(event.data.ptr);
    if (poll == nullptr) continue;
    const uint32_t wanted = poll->io_watcher.events;
    uint32_t events = event.events & (wanted | EPOLLERR | EPOLLHUP);
    if (events == EPOLLERR || events == EPOLLHUP) events |= wanted;  // who reads or writes learns what it is
    if (events == 0) continue;
    if (events & EPOLLERR) poll->poll_cb(poll, UV_EBADF, 0);
    else poll->poll_cb(poll, 0, (events & EPOLLIN ? UV_READABLE : 0) | (events & EPOLLOUT ? UV_WRITABLE : 0));
  }
  set->count = 0;
}

struct Exchange {
  const char* name;
  void* ours;
  void** place = nullptr;  // in the table of imports
};

struct Imports {
  Exchange all[7] = {
      {"uv_poll_init_socket", reinterpret_cast<void*>(pollInit)}, {"uv_poll_start", reinterpret_cast<void*>(pollStart)},
      {"uv_poll_stop", reinterpret_cast<void*>(pollStop)},        {"uv_close", reinterpret_cast<void*>(closeHandle)},
      {"uv_is_closing", reinterpret_cast<void*>(isClosing)},      {"send", reinterpret_cast<void*>(sendOnce)},
      {"setsockopt", reinterpret_cast<void*>(setOption)},
  };
  bool complete() const {
    for (const Exchange& one : all) {
      if (one.place == nullptr) return false;
    }
    return true;
  }
};

#if defined(__x86_64__)
constexpr uint32_t kImport = R_X86_64_JUMP_SLOT;
#elif defined(__aarch64__)
constexpr uint32_t kImport = R_AARCH64_JUMP_SLOT;
#else
constexpr uint32_t kImport = UINT32_MAX;
#endif

// Where a library has the addresses of the functions that it calls of others (System V ABI, chapter 5: the procedure linkage table).
int findImports(dl_phdr_info* info, size_t, void* out) {
  const size_t length = strlen(info->dlpi_name);
  if (length < 5 || strcmp(info->dlpi_name + length - 5, ".node") != 0) return 0;
  void* library = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
  if (library == nullptr) return 0;
  const bool isUSockets = dlsym(library, "us_adopt_accepted_socket") != nullptr;
  dlclose(library);
  if (!isUSockets) return 0;
  const ElfW(Dyn)* dynamic = nullptr;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const ElfW(Dyn)*>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
  }
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
  const ElfW(Rela)* relocations = nullptr;
  size_t bytes = 0;
  for (; dynamic != nullptr && dynamic->d_tag != DT_NULL; dynamic++) {
    if (dynamic->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const ElfW(Sym)*>(dynamic->d_un.d_ptr);
    if (dynamic->d_tag == DT_STRTAB) names = reinterpret_cast<const char*>(dynamic->d_un.d_ptr);
    if (dynamic->d_tag == DT_JMPREL) relocations = reinterpret_cast<const ElfW(Rela)*>(dynamic->d_un.d_ptr);
    if (dynamic->d_tag == DT_PLTRELSZ) bytes = dynamic->d_un.d_val;
  }
  if (symbols == nullptr || names == nullptr || relocations == nullptr) return 0;
  Imports found;
  for (size_t i = 0; i < bytes / sizeof *relocations; i++) {
    if (ELF64_R_TYPE(relocations[i].r_info) != kImport) continue;
    const char* name = names + symbols[ELF64_R_SYM(relocations[i].r_info)].st_name;
    for (Exchange& one : found.all) {
      if (strcmp(name, one.name) == 0) one.place = reinterpret_cast<void**>(info->dlpi_addr + relocations[i].r_offset);
    }
  }
  if (!found.complete()) return 0;
  // Nothing is exchanged in what the linker has made read-only.
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_GNU_RELRO) continue;
    const auto from = reinterpret_cast<void**>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    const auto to = reinterpret_cast<void**>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz);
    for (const Exchange& one : found.all) {
      if (one.place >= from && one.place < to) return 0;
    }
  }
  *static_cast<Imports*>(out) = found;
  return 1;
}

// spareSyscalls(isLastWrite) -> whether uWebSockets.js' connections of this thread are watched here, from now on.
napi_value spareSyscalls(napi_env env, napi_callback_info info) {
  Arguments<1> args(env, info);
  napi_value out;
  napi_ref kept;
  napi_typedarray_type type;
  size_t bytes = 0;
  void* isLastWrite = nullptr;
  if (napi_get_typedarray_info(env, args.at[0], &type, &bytes, &isLastWrite, nullptr, nullptr) != napi_ok || type != napi_uint8_array ||
      bytes < 1) {
    return throwArgument(env, "isLastWrite", "a Uint8Array of one");
  }
  uv_loop_t* loop;
  Imports imports;
  const bool possible = set == nullptr && napi_get_uv_event_loop(env, &loop) == napi_ok && dl_iterate_phdr(findImports, &imports) != 0;
  if (possible) {
    auto* made = new Set;
    made->epoll = Descriptor(epoll_create1(EPOLL_CLOEXEC));
    made->isLastWrite = static_cast<uint8_t*>(isLastWrite);
    if (made->epoll.valid() && napi_create_reference(env, args.at[0], 1, &kept) == napi_ok && uv_poll_init(loop, &made->poll, made->epoll.get()) == 0) {
      uv_poll_start(&made->poll, UV_READABLE, onReadable);
      uv_unref(reinterpret_cast<uv_handle_t*>(&made->poll));  // connections alone keep no process
      set = made;
      for (const Exchange& one : imports.all) *one.place = one.ours;
    } else delete made;
  }
  napi_get_boolean(env, set != nullptr, &out);
  return out;
}

}  // namespace

bool isWatchedByServer(int fd) {
  if (set == nullptr) return false;
  epoll_event event = {};
  if (epoll_ctl(set->epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return errno == EEXIST;
  epoll_ctl(set->epoll.get(), EPOLL_CTL_DEL, fd, &event);
  return false;
}

void registerSyscalls(napi_env env, napi_value exports) { setFunction(env, exports, "spareSyscalls", spareSyscalls); }

}  // namespace tidegate
