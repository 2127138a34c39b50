// The same without the ways that only save time.

#define HTTPSRV_NO_SHORTCUTS
#include "test_cases.c"
