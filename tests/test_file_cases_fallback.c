// The cases of files on a kernel without openat2, each path walked and checked step by step.

#define HTTPSRV_NO_OPENAT2
#include "test_file_cases.c"
