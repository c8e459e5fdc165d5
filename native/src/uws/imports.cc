// Finds the table of imports of the loaded uWebSockets.js (syscalls.h says what for, and what it costs to be without).
#include "syscalls.h"

#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstring>

namespace tidegate::sparing {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kImport = R_X86_64_JUMP_SLOT;
#elif defined(__aarch64__)
constexpr uint32_t kImport = R_AARCH64_JUMP_SLOT;
#else
constexpr uint32_t kImport = UINT32_MAX;
#endif

// Where a library keeps the addresses of the functions of other libraries that it calls (System V ABI, chapter 5: the
// procedure linkage table).
int lookInto(dl_phdr_info* info, size_t, void* data) {
  auto& wanted = *static_cast<Import(*)[kImports]>(data);
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
  for (size_t i = 0; i < bytes / sizeof *relocations; i++) {
    if (ELF64_R_TYPE(relocations[i].r_info) != kImport) continue;
    const char* name = names + symbols[ELF64_R_SYM(relocations[i].r_info)].st_name;
    for (Import& one : wanted) {
      if (strcmp(name, one.name) == 0) one.place = reinterpret_cast<void**>(info->dlpi_addr + relocations[i].r_offset);
    }
  }
  for (const Import& one : wanted) {
    if (one.place == nullptr) return 0;
  }
  // Nothing is exchanged in what the linker has made read-only.
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_GNU_RELRO) continue;
    const auto from = reinterpret_cast<void**>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    const auto to = reinterpret_cast<void**>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz);
    for (const Import& one : wanted) {
      if (one.place >= from && one.place < to) return 0;
    }
  }
  return 1;
}

}  // namespace

bool findImports() {
  Import found[kImports];
  for (size_t i = 0; i < kImports; i++) found[i] = {imports[i].name, imports[i].ours};
  if (dl_iterate_phdr(lookInto, &found) == 0) return false;
  for (size_t i = 0; i < kImports; i++) imports[i].place = found[i].place;
  return true;
}

}  // namespace tidegate::sparing
