// The segment: a file (or anonymous memory) that the primary opens, locks and maps, and that each worker maps again
// from the descriptor it inherits. Knows nothing of what lies in it: magic, layout and tables are src/state/.
//
//   the lock      flock belongs to the open file description, which children and mappings share. A worker closes its
//                 copy once it has mapped, and maps are made from descriptions of their own: the lock ends with the
//                 primary's descriptor, however the primary ends.
//   the path      names the inode we locked, or we start over: a starter that waited on a file which was replaced
//                 meanwhile would otherwise hold a lock on a file nobody else can find.
//   the mapping   belongs to its ArrayBuffer and is unmapped by its finalizer, never before. mappings.cc keeps it
//                 usable, also when somebody cuts the file short.
//   the file      is ours if it is empty, or if its first or its second page begins with the magic; any other is left
//                 as it is.
#include "addon.h"
#include "mappings.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace tidegate {
namespace {

// Far above any table, and below the largest ArrayBuffer of each Node: V8 aborts the process above its own limit.
constexpr int64_t kMaxBytes = int64_t{1} << 31;
constexpr size_t kMagicBytes = 8;
constexpr off_t kSecondPage = 4096;
constexpr int kMaxReplaced = 64;  // a path that changes under us this often is not a race between starters

void unmap(napi_env, void*, void* mapping) { removeMapping(static_cast<Mapping*>(mapping)); }

// Maps `bytes` of fd into *buffer; false means that an error has been thrown.
bool map(napi_env env, int fd, size_t bytes, const char* subject, napi_value* buffer) {
  // A mapping keeps the open file description it was made from, and with it the lock. So it is made from another one:
  // opening the link in /proc opens the same inode anew, also where it has no name (any more).
  char link[32];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  Descriptor own(open(link, O_RDWR | O_CLOEXEC));
  if (!own.valid() && errno != ENOENT) {
    throwSystem(env, errno, "open", subject);
    return false;
  }
  // Without /proc the lock lasts until all that mapped the file are gone: stricter than wanted, and safe.
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, own.valid() ? own.get() : fd, 0);
  if (memory == MAP_FAILED) {
    throwSystem(env, errno, "mmap", subject);
    return false;
  }
  // Anonymous memory is sealed, and so is never shorter than its mapping.
  if (fcntl(fd, F_GET_SEALS) > 0) close(own.release());
  Mapping* mapping = addMapping(memory, bytes, own.release());
  if (napi_create_external_arraybuffer(env, memory, bytes, unmap, mapping, buffer) == napi_ok) return true;
  removeMapping(mapping);
  throwCoded(env, "ENOTSUP", "mmap", "this JavaScript engine allows no external memory", subject);
  return false;
}

// Gives the first `bytes` of the file blocks of its own, keeping what is there. A sparse file would do until the disk
// is full: the first touch of a hole is then a SIGBUS in some worker. This way a full disk is an ENOSPC at start.
// Returns an errno or 0.
int reserve(int fd, off_t from, off_t bytes) {
  while (fallocate(fd, 0, 0, bytes) != 0) {
    if (errno == EINTR) continue;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
    static const char zeros[64 * 1024] = {};  // a file system without fallocate (NFS 3): write what is missing
    while (from < bytes) {
      const size_t rest = static_cast<size_t>(bytes - from);
      const ssize_t n = pwrite(fd, zeros, rest < sizeof zeros ? rest : sizeof zeros, from);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno;
      from += n;
    }
    return 0;
  }
  return 0;
}

// Why a file we did not make must not be mapped, or nullptr. A path in a directory that others may write to can hold
// anything.
const char* unsafe(const struct stat& file) {
  if (!S_ISREG(file.st_mode)) return "not a regular file";
  if (file.st_uid != geteuid()) return "belongs to another user";
  if (file.st_mode & 077) return "open to other users (mode is not 0600)";
  if (file.st_nlink > 1) return "has other hard links";
  return nullptr;
}

// A file that may be written: it holds nothing, or carries the magic, where there is one. Two pages have it, as one may
// be damaged.
bool foreign(int fd, const struct stat& file, const char* magic) {
  const size_t length = strlen(magic);
  if (file.st_size == 0 || length == 0) return false;
  char found[kMagicBytes];
  for (const off_t at : {off_t{0}, kSecondPage}) {
    if (pread(fd, found, length, at) == static_cast<ssize_t>(length) && memcmp(found, magic, length) == 0) return false;
  }
  return true;
}

napi_value throwForeign(napi_env env, const char* path) {
  return throwCoded(env, "EFOREIGN", "open", "not a state file of Tidegate, and so not overwritten (move it away, or name another path)", path);
}

// First of all, so that a start that ends here is known for what it is. Returns an errno or 0.
int writeMagic(int fd, const char* magic) {
  const size_t length = strlen(magic);
  return length == 0 || pwrite(fd, magic, length, 0) == static_cast<ssize_t>(length) ? 0 : errno == 0 ? EIO : errno;
}

bool samePath(const char* path, const struct stat& file) {
  struct stat named;
  return lstat(path, &named) == 0 && named.st_dev == file.st_dev && named.st_ino == file.st_ino;
}

// Whether somebody else's file is there. So is what is no regular file.
bool foreignAt(const char* path, const char* magic) {
  const Descriptor file(open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
  struct stat status;
  if (!file.valid()) return errno != ENOENT;
  return fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode) || foreign(file.get(), status, magic);
}

// An argument that may be left out. False: a TypeError has been thrown.
bool readMagic(napi_env env, napi_value value, char (&magic)[kMagicBytes + 1]) {
  napi_valuetype type;
  napi_typeof(env, value, &type);
  magic[0] = 0;
  return type == napi_undefined || readString(env, value, "magic", magic, sizeof magic);
}

// { fd, buffer, created, bytes }, the descriptor passing to the caller. On error it is closed.
napi_value segment(napi_env env, Descriptor file, size_t bytes, bool created, const char* path) {
  struct stat status;
  napi_value buffer, flag, out;
  if (fstat(file.get(), &status) != 0) return throwSystem(env, errno, "fstat", path);
  if (!map(env, file.get(), bytes, path, &buffer)) return nullptr;
  napi_get_boolean(env, created, &flag);
  napi_create_object(env, &out);
  setProperty(env, out, "buffer", buffer);
  setProperty(env, out, "created", flag);
  setProperty(env, out, "bytes", integer(env, status.st_size));
  setProperty(env, out, "fd", integer(env, file.release()));
  return out;
}

napi_value openAnonymous(napi_env env, size_t bytes) {
  Descriptor file(memfd_create("tidegate", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) return throwSystem(env, errno, "memfd_create", "");
  // Sparse: memory without a file system behind it has no ENOSPC. Sealed, so that nobody can cut it short under a
  // reader.
  if (ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) return throwSystem(env, errno, "ftruncate", "");
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) return throwSystem(env, errno, "fcntl", "");
  return segment(env, std::move(file), bytes, true, "");
}

// Creates `path`, which must not exist, locked and of full size. Removes it again when that fails: the result is then
// not valid and an error has been thrown.
Descriptor createFile(napi_env env, const char* path, size_t bytes, const char* magic) {
  Descriptor file(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) {
    throwSystem(env, errno, "open", path);
    return file;
  }
  const char* syscall = "flock";
  int error = flock(file.get(), LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  if (error == 0) {
    syscall = "pwrite";
    error = writeMagic(file.get(), magic);
  }
  if (error == 0) {
    syscall = "fallocate";
    error = reserve(file.get(), 0, static_cast<off_t>(bytes));
  }
  if (error != 0) {
    unlink(path);
    throwSystem(env, error, syscall, path);
    return Descriptor();
  }
  return file;
}

// A file whose descriptor, and with it the lock, is ours already: a predecessor handed it over. On error it stays the
// caller's.
napi_value openHeld(napi_env env, int fd, const char* path, size_t bytes, const char* magic) {
  struct stat status;
  if (fstat(fd, &status) != 0) return throwSystem(env, errno, "fstat", path);
  if (const char* reason = unsafe(status)) return throwCoded(env, "EUNSAFE", "open", reason, path);
  if (!samePath(path, status)) return throwCoded(env, "ESTALE", "open", "fd is not the file at this path", path);
  if (foreign(fd, status, magic)) return throwForeign(env, path);
  // Of the same open file description: a lock it has is taken once more.
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return throwSystem(env, errno, "flock", path);
    return throwCoded(env, "ELOCKED", "flock", "another process holds it", path);
  }
  if (const int error = reserve(fd, status.st_size, static_cast<off_t>(bytes))) return throwSystem(env, error, "fallocate", path);
  // The caller's until all has gone well.
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return throwSystem(env, errno, "fcntl", path);
  napi_value out = segment(env, Descriptor(own), bytes, false, path);
  if (out != nullptr) close(fd);
  return out;
}

// openSegment(path | null, bytes, magic = '', held = -1) -> { fd, buffer, created, bytes }
napi_value openSegment(napi_env env, napi_callback_info info) {
  Arguments<4> args(env, info);
  napi_valuetype type, heldType;
  int64_t bytes;
  char path[kPathBytes], magic[kMagicBytes + 1];
  napi_typeof(env, args.at[0], &type);
  if (type != napi_null && !readString(env, args.at[0], "path", path, sizeof path)) return nullptr;
  if (!readInteger(env, args.at[1], "bytes", 1, kMaxBytes, &bytes)) return nullptr;
  if (!readMagic(env, args.at[2], magic)) return nullptr;
  if (type == napi_null) return openAnonymous(env, static_cast<size_t>(bytes));
  napi_typeof(env, args.at[3], &heldType);
  if (heldType != napi_undefined) {
    int64_t held;
    if (!readInteger(env, args.at[3], "held", 0, INT32_MAX, &held)) return nullptr;
    return openHeld(env, static_cast<int>(held), path, static_cast<size_t>(bytes), magic);
  }

  for (int attempt = 0; attempt < kMaxReplaced; attempt++) {
    // O_NONBLOCK: a FIFO or a device someone left there must not hold us up. On a regular file it means nothing.
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
    bool created = false;
    Descriptor file(open(path, flags));
    if (!file.valid() && errno == ENOENT) {
      file = Descriptor(open(path, flags | O_CREAT | O_EXCL, 0600));
      if (!file.valid() && errno == EEXIST) continue;  // another starter was quicker
      created = file.valid();
    }
    if (!file.valid()) return throwSystem(env, errno, "open", path);

    struct stat status;
    if (fstat(file.get(), &status) != 0) return throwSystem(env, errno, "fstat", path);
    if (const char* reason = unsafe(status)) return throwCoded(env, "EUNSAFE", "open", reason, path);
    if (flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return throwSystem(env, errno, "flock", path);
      return throwCoded(env, "ELOCKED", "flock", "another process holds it", path);
    }
    if (!samePath(path, status)) continue;  // replaced or removed between open and lock
    // Read again: who held the lock until now may have grown it.
    if (fstat(file.get(), &status) != 0) return throwSystem(env, errno, "fstat", path);
    if (foreign(file.get(), status, magic)) return throwForeign(env, path);
    if (status.st_size == 0) {
      if (const int error = writeMagic(file.get(), magic)) return throwSystem(env, error, "pwrite", path);
    }
    if (const int error = reserve(file.get(), status.st_size, static_cast<off_t>(bytes))) {
      if (created) unlink(path);  // ours and still locked: nobody else has begun to use it
      return throwSystem(env, error, "fallocate", path);
    }
    return segment(env, std::move(file), static_cast<size_t>(bytes), created, path);
  }
  return throwCoded(env, "EAGAIN", "open", "the file keeps being replaced", path);
}

// replaceSegment(fd, path, bytes, magic = '') -> { fd, buffer, created: true, bytes } For a file that does not fit:
// puts a new one in its place and closes `fd`, the locked descriptor of the old one. The new file is locked before
// rename makes it visible and the old lock ends after, so the path names a locked file throughout. Mappings of the old
// file keep the old inode.
napi_value replaceSegment(napi_env env, napi_callback_info info) {
  Arguments<4> args(env, info);
  int64_t oldFd, bytes;
  char path[kPathBytes], fresh[kPathBytes + 8], magic[kMagicBytes + 1];
  if (!readInteger(env, args.at[0], "fd", 0, INT32_MAX, &oldFd)) return nullptr;
  if (!readString(env, args.at[1], "path", path, sizeof path)) return nullptr;
  if (!readInteger(env, args.at[2], "bytes", 1, kMaxBytes, &bytes)) return nullptr;

  if (!readMagic(env, args.at[3], magic)) return nullptr;

  struct stat old;
  if (fstat(static_cast<int>(oldFd), &old) != 0) return throwSystem(env, errno, "fstat", path);
  if (!samePath(path, old)) return throwCoded(env, "ESTALE", "replace", "fd is not the file at this path", path);
  // Taken already when fd comes from openSegment. Only its holder may touch the name below.
  if (flock(static_cast<int>(oldFd), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return throwSystem(env, errno, "flock", path);
    return throwCoded(env, "ELOCKED", "flock", "another process holds it", path);
  }
  snprintf(fresh, sizeof fresh, "%s.new", path);
  if (foreignAt(fresh, magic)) return throwForeign(env, fresh);
  if (unlink(fresh) != 0 && errno != ENOENT) return throwSystem(env, errno, "unlink", fresh);  // left by a crash in here
  Descriptor file = createFile(env, fresh, static_cast<size_t>(bytes), magic);
  if (!file.valid()) return nullptr;
  if (rename(fresh, path) != 0) {
    const int error = errno;
    unlink(fresh);
    return throwSystem(env, error, "rename", path);
  }
  napi_value out = segment(env, std::move(file), static_cast<size_t>(bytes), true, path);
  if (out != nullptr) close(static_cast<int>(oldFd));
  return out;
}

// attachSegment(fd, bytes) -> ArrayBuffer. Closes fd when it succeeds; on error fd stays the caller's, it may be
// anything.
napi_value attachSegment(napi_env env, napi_callback_info info) {
  Arguments<2> args(env, info);
  int64_t fd, bytes;
  if (!readInteger(env, args.at[0], "fd", 0, INT32_MAX, &fd)) return nullptr;
  if (!readInteger(env, args.at[1], "bytes", 1, kMaxBytes, &bytes)) return nullptr;
  struct stat status;
  if (fstat(static_cast<int>(fd), &status) != 0) return throwSystem(env, errno, "fstat", "");
  if (!S_ISREG(status.st_mode)) return throwCoded(env, "EUNSAFE", "mmap", "not a regular file", "");
  // Past the end of the file a mapping is only a SIGBUS.
  if (status.st_size < bytes) return throwCoded(env, "EOVERFLOW", "mmap", "the file is shorter than bytes", "");
  napi_value buffer;
  if (!map(env, static_cast<int>(fd), static_cast<size_t>(bytes), "", &buffer)) return nullptr;
  close(static_cast<int>(fd));
  return buffer;
}

}  // namespace

void registerSegment(napi_env env, napi_value exports) {
  surviveTruncation();
  setFunction(env, exports, "openSegment", openSegment);
  setFunction(env, exports, "replaceSegment", replaceSegment);
  setFunction(env, exports, "attachSegment", attachSegment);
}

}  // namespace tidegate
