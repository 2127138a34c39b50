// The one unit that has the implementation.
#define HTTPSRV_IMPLEMENTATION
#include "httpsrv.h"
