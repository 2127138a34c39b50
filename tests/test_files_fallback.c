// Files on a kernel without openat2: the same tests, with each path walked and checked step by step.

#define HTTPSRV_NO_OPENAT2
#include "test_files.c"
