// What calls.cc asks of syscalls.cc.
#pragma once

namespace tidegate {

// Whether uWebSockets.js has this descriptor among its connections, watched by the set of this thread.
bool isWatched(int fd);

}  // namespace tidegate
