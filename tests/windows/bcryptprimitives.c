/* Rust's standard library takes its random numbers from this DLL of Windows, which older versions of wine lack. */

#include <windows.h>

#include <limits.h>
#include <ntsecapi.h>

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
    return length <= ULONG_MAX && RtlGenRandom(data, (ULONG)length);
}
